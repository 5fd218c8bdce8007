"""`perception bench batches`: a row for each way to use the cores; no figure is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perception.bench import batches
from perception.commands.main import app
from perception.common.hardware import usable_cores
from tests.media import make_video
from tests.models import write_model

pytest.importorskip("psutil")
pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins nothing to cores")


def test_a_process_on_one_core() -> None:
    before = os.sched_getaffinity(0)
    with batches._on_one_core() as core:
        code = "import os; print(os.sched_getaffinity(0))"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert child.stdout.strip() == str({core})
    assert os.sched_getaffinity(0) == before


def test_what_is_our_own_is_not_taken_by_others() -> None:
    """Time of this process and of those that it has started counts, and is a part of what was busy."""
    cores = sorted(os.sched_getaffinity(0))
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\nimport sys; sys.stdin.read()"
    first = batches._Clock(cores)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        mine = time.process_time()
        while time.process_time() < mine + 0.5:
            pass
        last = batches._Clock(cores)
        child.stdin.close()
    own, busy, wall = last.own - first.own, last.busy - first.busy, last.wall - first.wall
    assert own >= 0.95 and busy <= len(cores) * wall + 0.1
    assert own <= busy + 0.15  # clocks of the system tick each 10 ms on each core


def test_files_that_are_all_the_same(tmp_path: Path) -> None:
    clip = tmp_path / "a.mkv"
    clip.write_bytes(b"abc")
    made = sorted(batches._files(clip, 3, tmp_path / "in").iterdir())
    assert [(path.name, path.read_bytes()) for path in made] == [(f"00000{i}.mkv", b"abc") for i in range(3)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rows(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "m.onnx", classes=["white", "black"], detection=True))
    clip = str(make_video(tmp_path / "a.mp4", frames=80))
    arguments = ["bench", "batches", "-m", model, "--clip", clip, "--seconds", "3", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    before, wide, jobs, cluster, after = json.loads(result.stdout)
    assert before["run"] == after["run"] == "1 process, 1 core" and "batches on all cores" in before["table"]
    assert (wide["run"], jobs["run"]) == ("1 process, all cores", f"--jobs {usable_cores()}")
    assert cluster["run"] == "--cluster local"
    for row in (before, wide, jobs, after):
        assert row["fps"] > 0 and row["start_s"] > 0 and row["efficiency"] > 0
        assert 0 <= row["other_programs_cores"] <= usable_cores() * 2
    assert before["efficiency"] + after["efficiency"] == pytest.approx(2, abs=0.01)  # compared with their mean
    assert "skipped" in cluster or cluster["fps"] > 0
