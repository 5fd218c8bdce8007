"""Freed memory goes back to the system, also from threads that have ended."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading

import psutil
import pytest

from perception.server.inference.models import Models
from perception.server.memory import give_back
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
