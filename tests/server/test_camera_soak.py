"""Ten minutes of sixteen cameras at 2 frames a second each, with a wall that comes and goes: nothing grows or is left.

``SOAK_SECONDS=3600`` makes it an hour.
"""

import os
import signal
import statistics
import time

import psutil
import pytest
from websockets.sync.client import connect

from perception.bench.rtsp_camera import encoded, rtsp_camera, served
from tests.media import make_video
from tests.server.test_sources_api import Server
from tests.server.waiting import wait_for

SECONDS = int(os.environ.get("SOAK_SECONDS", "600"))
CAMERAS = 16
WARMUP_S = min(90, SECONDS / 3)
"""Until a wall has come and gone a few times: allocators and pools then have what they will hold."""

GROWTH_BYTES = 30e6
FEW = 4
"""Threads of a pool that come and go; each change of the cameras would leave sixteen, if it left any."""

CHANGES = 5
"""Each so many looks all cameras but one go, and come again."""


def look(server, seconds):
    """Watch the wall for so long; how many pictures came."""
    until, pictures = time.monotonic() + seconds, 0
    with connect(f"ws://{server.client.base_url.netloc.decode()}/v1/wall", max_size=None) as viewer:
        while time.monotonic() < until or not pictures:  # though the machine be busy
            pictures += isinstance(viewer.recv(60), bytes)
    return pictures


def streams(server):
    return server.client.get("/v1/streams").json()["streams"]


def frames(server):
    return {stream["id"]: stream["frames"] for stream in streams(server)}


def all_run(server):
    wait_for(lambda: len(frames(server)) == CAMERAS and all(frames(server).values()), 240)


def at_rest(server, folder):
    """Memory, threads, descriptors and temporary files where nobody looks: the least of a few seconds, since in some of
    them there is a request.
    """
    process = psutil.Process(server.process.pid)
    wait_for(lambda: all(stream["viewers"] == 0 for stream in streams(server)), 60)
    taken = []
    for _ in range(6):
        time.sleep(1)
        files = sum(1 for path in folder.rglob("*") if path.is_file())
        taken.append((process.memory_info().rss, process.num_threads(), process.num_fds(), files))
    return tuple(min(each) for each in zip(*taken, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_sixteen_cameras_for_long(tmp_path):
    clip = make_video(tmp_path / "v.mp4", frames=100, fps=25, size_wh=(1280, 720))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with served(rtsp_camera(encoded(clip, 25, 1.0, 100), fps=25)) as address:
        lines = [f"  cam{i}: {{uri: '{address}', fps: 2, keep: true}}\n" for i in range(CAMERAS)]
        many, one = (f"sources:\n{''.join(part)}limits: {{share: 1}}\n" for part in (lines, lines[:1]))
        server = Server(tmp_path, many, env={**os.environ, "TMPDIR": str(temporary)})
        try:
            all_run(server)
            figures, decoded, began = [], [], time.monotonic()
            while (passed := time.monotonic() - began) < SECONDS:
                assert look(server, 5) > 0
                before = frames(server)
                figures.append((passed, *at_rest(server, temporary)))
                # Not at the end: of a camera that has only now come again all is decoded at first.
                decoded.append(sum(stream["decoded"] for stream in streams(server)) / CAMERAS)
                after = frames(server)
                assert all(after[id] > before[id] for id in before)  # each goes on
                if len(figures) % CHANGES == 0:
                    server.hang_up(one, "removed")
                    wait_for(lambda: len(frames(server)) == 1, 60)
                    server.hang_up(many, "added")
                    all_run(server)
            settled = [taken for taken in figures if taken[0] >= WARMUP_S]
            third = max(1, len(settled) // 3)
            first, last = (
                [statistics.median(each) for each in zip(*part, strict=True)]
                for part in (settled[:third], settled[-third:])
            )
            for _, memory, threads, descriptors, files in (first, last):
                print(f"{memory / 1e6:.1f} MB, {threads} threads, {descriptors} descriptors, {files} temporary files")
            print(f"{len(figures)} times at rest; decoded {statistics.median(decoded):.2f} of the frames")
            assert {stream["reconnects"] for stream in streams(server)} == {0}
            assert statistics.median(decoded) < 0.9
            assert last[1] - first[1] < GROWTH_BYTES
            assert all(after < before + FEW for before, after in zip(first[2:], last[2:], strict=True))
        finally:
            server.stop()
