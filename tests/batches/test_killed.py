"""A batch is killed in every way, and goes on: its outputs are those of an undisturbed one, to the byte."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from perception.errors import UsageError
from tests.batches.running import (
    command,
    done_in,
    is_running,
    make_clips,
    started,
    tree,
    until,
    workers_of,
)
from tests.faults.mounts import small_disk
from tests.faults.row import NotHere
from tests.fixtures import Main
from tests.models import write_model

pytestmark = [
    pytest.mark.usefixtures("own_cache_home"),
    pytest.mark.timeout(600),  # each run starts three processes, on a machine that may be busy
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc"),
]


def finish(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "perception", *words], capture_output=True, text=True, timeout=600)


def kill(process: subprocess.Popen[str], way: str) -> None:
    """Kill a worker, which the batch survives; or the parent, whose workers end; or all of them at once."""
    workers = workers_of(process)
    if way == "worker":
        os.kill(workers[0], signal.SIGKILL)
    elif way == "parent":
        process.kill()
        process.wait()
        until(lambda: not any(is_running(pid) for pid in workers))
    else:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def disturbed(words: list[str], out: Path, ways: Sequence[str], moments: random.Random, most: int) -> None:
    """Run it to its end, and kill it: each time a moment after up to ``most`` more sources are done."""
    left = list(ways)
    while left:
        with started(words) as process:
            while left and process.poll() is None:
                wanted = done_in(out) + moments.randint(1, most)
                until(lambda wanted=wanted: done_in(out) >= wanted, process)  # type: ignore[misc]
                time.sleep(moments.uniform(0, 0.1))
                way = left.pop(0)
                kill(process, way)
                if way != "worker":
                    break
            else:
                process.wait()
    ended = finish(words)
    assert ended.returncode == 0, ended.stderr


def test_ctrl_c(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = command(make_clips(tmp_path / "in", 8), str(write_model(tmp_path / "m.onnx", detection=True)), out)
    with started(words) as process:
        until(lambda: done_in(out) >= 1, process)
        workers = workers_of(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate()
        assert process.returncode == 130, told
        assert told.strip().endswith("interrupted: the same command with --resume goes on"), told
        assert not any(is_running(pid) for pid in workers)
    done = done_in(out)
    assert 1 <= done < 8 and not list(out.glob(".*")) and len(list(out.rglob("*.mp4"))) == done
    report = (out / "report.html").read_text(encoding="utf-8")
    assert f"{done} of 8 files annotated" in report and f"{8 - done} not done: interrupted" in report


def test_a_kill_of_all_and_on(tmp_path: Path, main_here: Main) -> None:
    clips = make_clips(tmp_path / "in", 8)
    model = str(write_model(tmp_path / "colors.onnx", detection=True))
    whole, out = tmp_path / "whole", tmp_path / "out"
    with started(command(clips, model, out)) as process:
        until(lambda: done_in(out) >= 2, process)
        kill(process, "group")
    before = done_in(out)
    done = main_here(*command(clips, model, out, "--json"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 2 <= told["skipped"] == before and told["done"] + told["skipped"] == told["total"] == 8
    assert main_here(*command(clips, model, whole, "-q")).returncode == 0
    assert tree(out) == tree(whole)


def test_a_file_that_kills_its_process_fails_alone(tmp_path: Path, main_here: Main) -> None:
    clips = make_clips(tmp_path / "in", 3)
    (clips / "camera0" / "clip0.mp4").rename(clips / "camera0" / "poison.mp4")
    model, out = str(write_model(tmp_path / "colors.onnx", detection=True)), tmp_path / "out"
    done = main_here(*command(clips, model, out, "--stage", "tests.batches.poison:poison"))
    assert done.returncode == 3, done.stderr
    assert "poison.mp4: the process that annotates it was ended by SIGKILL, 2 times" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("2 of 3 done, 1 failed: ")
    assert sorted(p.name for p in out.rglob("*.mp4")) == ["clip0.mp4", "clip0.mp4"] and not list(out.glob(".*"))


def test_a_full_disk_stops_it_and_more_room_lets_it_go_on(tmp_path: Path, main_here: Main) -> None:
    clips = make_clips(tmp_path / "in", 9)
    model, whole = str(write_model(tmp_path / "colors.onnx", detection=True)), tmp_path / "whole"
    try:
        with small_disk(tmp_path / "disk", 12 * 4096) as disk:
            out = disk / "out"
            stopped = main_here(*command(clips, model, out))
            assert stopped.returncode in (1, 3), stopped.stderr
            assert "the disk is full" in stopped.stderr.strip().splitlines()[-1]
            assert "--resume goes on" in stopped.stderr.strip().splitlines()[-1]
            assert not list(out.glob(".*"))
            subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
            assert main_here(*command(clips, model, out)).returncode == 0
            assert main_here(*command(clips, model, whole)).returncode == 0
            assert {k: v for k, v in tree(out).items() if k.startswith("camera")} == {
                k: v for k, v in tree(whole).items() if k.startswith("camera")
            }
    except NotHere as error:
        pytest.skip(str(error))


def test_one_batch_at_a_time(tmp_path: Path) -> None:
    """The lock ends with the process that has it, whatever ends it."""
    pytest.importorskip("fcntl")
    from perception.batch.lock import FolderLock

    code = "import sys, time, pathlib; from perception.batch.lock import FolderLock\n"
    code += "lock = FolderLock(pathlib.Path(sys.argv[1]), shared=True); print('has it', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "has it\n"
        FolderLock(tmp_path, shared=True).release()
        with pytest.raises(UsageError, match="another batch is writing"):
            FolderLock(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    lock = FolderLock(tmp_path, wait_s=60)
    with pytest.raises(UsageError, match="another batch"):
        FolderLock(tmp_path, shared=True)
    lock.release()
    FolderLock(tmp_path).release()


@pytest.mark.slow
def test_two_hundred_clips_and_five_kills(tmp_path: Path) -> None:
    """The whole group, a worker alone, the parent alone, at random moments."""
    clips = make_clips(tmp_path / "in", 200)
    model = str(write_model(tmp_path / "colors.onnx", detection=True))
    ended = finish(command(clips, model, tmp_path / "whole"))
    assert ended.returncode == 0 and ended.stderr.strip().endswith("200 of 200 done"), ended.stderr
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # shown where it fails
    ways = ["worker", "group", "parent", "worker", "group"]
    disturbed(command(clips, model, tmp_path / "out"), tmp_path / "out", ways, random.Random(seed), 30)
    whole = tree(tmp_path / "whole")
    assert len([name for name in whole if name.endswith(".mp4")]) == 200
    assert tree(tmp_path / "out") == whole
