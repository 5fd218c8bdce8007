"""Freed memory goes back to the system, also from threads that have ended."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from perception import UsageError
from perception.server import memory
from perception.server.inference.models import Models
from perception.server.memory import CAMERA_BYTES, SERVER_BYTES, check_cameras, give_back
from perception.server.metrics import Metrics
from perception.server.settings import ServerSettings
from perception.server.streams import hub as hubs
from perception.server.streams.hub import StreamHub

PIECE, PIECES = 60_000, 2_000  # bytes; small enough to come from an arena


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to give memory back")
def test_holes_in_the_memory_of_a_thread_are_given_back() -> None:
    process = psutil.Process()
    kept: list[bytes] = []

    def work() -> None:
        pieces = [b"x" * PIECE for _ in range(PIECES)]
        kept.extend(pieces[::100])  # so that nothing but the holes between them is free

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = process.memory_info().rss
    assert give_back()
    assert before - process.memory_info().rss > 0.7 * PIECE * PIECES
    assert all(piece == b"x" * PIECE for piece in kept)


_WORK = f"""
import threading
import psutil
from perception.server.memory import give_back, share_arenas

assert share_arenas()
bytes(30_000_000)  # once freed, glibc keeps up to twice that at the end of each arena
process = psutil.Process()
before = process.memory_info().rss
begin = threading.Barrier(8)

def work():
    pieces = [b"x"]
    begin.wait()
    pieces += [b"x" * {PIECE} for _ in range(300)]
    begin.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
give_back()
print(process.memory_info().rss - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_threads_of_a_server_share_arenas_whose_ends_alone_are_kept() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", _WORK], env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) < 75e6  # of 144 MB, which stay where each thread has an arena


def test_a_running_server_gives_it_back(colors, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    given = threading.Event()
    monkeypatch.setattr(hubs, "GIVING_BACK_S", 0.05)
    monkeypatch.setattr(hubs, "give_back", given.set)
    settings = ServerSettings(model=str(colors), data_dir=tmp_path)
    metrics = Metrics()
    hub = StreamHub(settings, Models(settings, metrics), metrics, idle_s=0.2)
    try:
        assert given.wait(30)
    finally:
        hub.close()


GB = 1_000_000_000


@pytest.mark.parametrize(
    ("free", "named", "limit", "said"),
    [
        (SERVER_BYTES + 20 * CAMERA_BYTES, 300, None, "memory for 20 of 300 cameras"),
        (SERVER_BYTES + 20 * CAMERA_BYTES, 21, None, "limits: {streams: 20}"),
        (SERVER_BYTES // 2, 2, None, "memory for 0 of 2 cameras"),
    ],
)
def test_too_many_cameras_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, free: int, named: int, limit: int | None, said: str
) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: (64 * GB, free))
    with pytest.raises(UsageError) as caught:
        check_cameras(named, limit)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_the_operator_says_is_done_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: (64 * GB, SERVER_BYTES + 20 * CAMERA_BYTES))
    assert check_cameras(300, 20) == ""
    assert check_cameras(20, None) == ""
    assert "memory for 20 of 30 cameras" in check_cameras(300, 30)
    monkeypatch.setattr(memory, "memory_bytes", lambda: None)  # a system that does not tell
    assert check_cameras(300, None) == ""
    monkeypatch.setattr(memory, "memory_bytes", lambda: (64 * GB, 0))
    assert check_cameras(300, None) == ""


def test_a_server_with_too_many_cameras_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from perception.commands.main import app

    monkeypatch.setattr(memory, "memory_bytes", lambda: (4 * GB, SERVER_BYTES + 20 * CAMERA_BYTES))
    config = tmp_path / "live.yaml"
    config.write_text("port: 0\nsources:\n" + "".join(f"  cam{i}: rtsp://cam{i}.test/a\n" for i in range(300)))
    result = CliRunner().invoke(
        app, ["live", "--config", str(config), "--no-browser", "--data-dir", str(tmp_path / "d")]
    )
    assert isinstance(result.exception, UsageError)
    assert "memory for 20 of 300 cameras" in str(result.exception)
    assert not (tmp_path / "d").exists()
