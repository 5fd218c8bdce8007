"""Ten minutes of sixteen cameras at 2 frames a second each, with a wall that comes and goes: nothing grows or is left.

``SOAK_SECONDS=3600`` makes it an hour.
"""

import os
import statistics
import time

import psutil
import pytest
from websockets.sync.client import connect

from tests.media import make_video
from tests.server.test_sources_api import Server
from tests.server.waiting import wait_for

SECONDS = int(os.environ.get("SOAK_SECONDS", "600"))
CAMERAS = 16
WARMUP_S = min(90, SECONDS / 3)
"""Until a wall has come and gone a few times: allocators and pools then have what they will hold."""

GROWTH_BYTES = 30e6


def look(server, seconds):
    """Watch the wall for so long."""
    until = time.monotonic() + seconds
    with connect(str(server.client.base_url).replace("http", "ws") + "v1/wall", max_size=None) as viewer:
        pictures = 0
        while time.monotonic() < until:
            pictures += isinstance(viewer.recv(60), bytes)
    return pictures


def at_rest(server):
    """Memory, threads and descriptors where nobody looks: the least of a few seconds, in some of which is a request."""
    process = psutil.Process(server.process.pid)
    wait_for(lambda: all(s["viewers"] == 0 for s in server.client.get("/v1/streams").json()["streams"]), 60)
    taken = []
    for _ in range(6):
        time.sleep(1)
        taken.append((process.memory_info().rss, process.num_threads(), process.num_fds()))
    return tuple(min(each) for each in zip(*taken, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 900)
def test_sixteen_cameras_for_long(tmp_path):
    video = make_video(tmp_path / "v.mp4", frames=100, fps=25, size_wh=(1280, 720))
    cameras = "".join(f"  cam{i}: {{uri: '{video}', fps: 2, keep: true}}\n" for i in range(CAMERAS))
    server = Server(tmp_path, f"sources:\n{cameras}limits: {{share: 1}}\n")
    try:

        def frames():
            return {s["id"]: s["frames"] for s in server.client.get("/v1/streams").json()["streams"]}

        wait_for(lambda: len(frames()) == CAMERAS and all(frames().values()), 240)
        figures, began = [], time.monotonic()
        while (passed := time.monotonic() - began) < SECONDS:
            assert look(server, 5) > 0
            before = frames()
            figures.append((passed, *at_rest(server)))
            after = frames()
            assert all(after[id] > before[id] for id in before)  # each goes on
            if len(figures) % 5 == 0:  # one goes and comes
                assert server.hang_up(f"sources:\n{cameras.splitlines()[0]}\nlimits: {{share: 1}}\n", "removed") is None
                server.hang_up(f"sources:\n{cameras}limits: {{share: 1}}\n", "added")
                wait_for(lambda: len(frames()) == CAMERAS and all(frames().values()), 240)
        settled = [taken for taken in figures if taken[0] >= WARMUP_S]
        third = max(1, len(settled) // 3)
        first, last = settled[:third], settled[-third:]
        growth = [statistics.median(t[i] for t in last) - statistics.median(t[i] for t in first) for i in (1, 2, 3)]
        print(f"{len(figures)} looks; growth: {growth[0] / 1e6:.1f} MB, {growth[1]} threads, {growth[2]} descriptors")
        for taken in (settled[0], settled[-1]):
            print(f"{taken[0]:.0f} s: {taken[1] / 1e6:.1f} MB, {taken[2]} threads, {taken[3]} descriptors")
        assert growth[0] < GROWTH_BYTES and growth[1] <= 0 and growth[2] <= 0
    finally:
        server.stop()
