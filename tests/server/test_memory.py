"""Freed memory goes back to the system, also from threads that have ended."""

from __future__ import annotations

import platform
import threading

import psutil
import pytest

from perception.server import hub as hubs
from perception.server.hub import StreamHub
from perception.server.memory import give_back
from perception.server.metrics import Metrics
from perception.server.models import Models
from perception.server.settings import ServerSettings

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
