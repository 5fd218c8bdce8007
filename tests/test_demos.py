"""The demos run as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest

SCENE = "synthetic:?size=160x120&frames=4"
DEMOS = Path(__file__).parents[1] / "demos"


def run(name: str, *args: str) -> str:
    done = subprocess.run([sys.executable, str(DEMOS / name), *args], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_annotate_video(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    lines = run("annotate_video.py", SCENE, str(out)).splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2, 3]
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_road_ahead() -> None:
    lines = run("road_ahead.py", SCENE).splitlines()
    assert len(lines) == 4
    assert all("%" in line for line in lines)


def test_foreign_model() -> None:
    lines = run("foreign_model.py").splitlines()
    assert len(lines) == 20
    assert any("red" in line or "blue" in line or "green" in line for line in lines)


@pytest.mark.parametrize("path", sorted(DEMOS.glob("*.py")), ids=lambda p: p.name)
def test_each_is_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
