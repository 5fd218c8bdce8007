"""The demos run as they stand."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from tests.media import make_video

SCENE = "synthetic:?size=160x120&frames=4"
DEMOS = Path(__file__).parents[1] / "demos"


Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a demo as Python runs a script, in this process, which need not import everything first."""

    def call(name: str, *args: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(DEMOS / name), *args])
        runpy.run_path(str(DEMOS / name), run_name="__main__")
        return capfd.readouterr().out

    return call


def test_annotate_video(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "o.mp4"
    lines = run("annotate_video.py", SCENE, str(out)).splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2, 3]
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_road_ahead(run: Run) -> None:
    lines = run("road_ahead.py", SCENE).splitlines()
    assert len(lines) == 4
    assert all("%" in line for line in lines)


def test_count_cars(run: Run) -> None:
    assert run("count_cars.py", SCENE).splitlines()[-1] == "done"


def test_foreign_model(run: Run) -> None:
    lines = run("foreign_model.py").splitlines()
    assert len(lines) == 20
    assert any("red" in line or "blue" in line or "green" in line for line in lines)


def test_webcam_without_a_window(run: Run) -> None:
    assert run("webcam.py", SCENE, "--headless").startswith("4 frames, ")


def test_annotate_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", frames=3)
    (tmp_path / "in" / "b.mp4").write_bytes(b"no video")
    command = [sys.executable, str(DEMOS / "annotate_folder.py"), str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    good, bad = done.stdout.splitlines()
    assert "a.mp4: 3 frames" in good and bad.startswith("failed: ") and "b.mp4" in bad
    assert len((tmp_path / "out" / "a.jsonl").read_text().splitlines()) == 3


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is here")
def test_ros2_detections_where_there_is_no_ros2() -> None:
    command = [sys.executable, str(DEMOS / "ros2_detections.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.startswith("rclpy is not installed") and done.stderr.count("\n") == 1


def test_live_view(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra `live` is not installed")
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    command = [sys.executable, str(DEMOS / "live_view.py"), SCENE, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            with urllib.request.urlopen(f"{url}/v1/streams", timeout=60) as answer:
                assert json.load(answer)["sources"] == ["mine"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.mark.parametrize("path", sorted(DEMOS.glob("*.py")), ids=lambda p: p.name)
def test_each_is_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


def test_sliding_window(run: Run) -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is computed is tiny, and cores are shared
    try:
        first, _, last = run("sliding_window.py", "60").splitlines()
    finally:
        torch.set_num_threads(threads)
    assert first.startswith("81 windows of 28x28, 4 pixels apart")
    assert float(last.rsplit(" ", 1)[1]) < 1e-4
