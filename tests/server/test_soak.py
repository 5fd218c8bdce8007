"""Five minutes of a server with viewers, before and after them some who come and go: nothing grows or is left.

``SOAK_SECONDS=3600`` makes it an hour.
"""

import json
import os
import subprocess
import sys
import threading
import time

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from perception.server.streams.hub import GIVING_BACK_S
from tests.media import make_video
from tests.models import write_model

SECONDS = int(os.environ.get("SOAK_SECONDS", "300"))
WARMUP_S = 90
"""Until every kind of viewer has come and gone a few times: allocators and pools then have what they will hold."""

GROWTH_BYTES = 30e6


class Server:
    """``perception live`` in a process of its own."""

    def __init__(self, folder):
        model = write_model(folder / "colors.onnx", classes=["white", "black"], detection=True)
        video = make_video(folder / "v.mp4", frames=100, fps=25, size_wh=(640, 360))
        command = [sys.executable, "-m", "perception", "live", str(video), "--port", "0", "--no-browser"]
        command += ["--model", str(model), "--data-dir", str(folder / "data")]
        self.folder = folder
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.process.stdout.readline()
        while "http" not in line:  # first it says that it prepares
            assert line, self.process.wait(10)
            line = self.process.stdout.readline()
        self.url = line[line.index("http") :].split()[0].rstrip("/")
        self.watched = psutil.Process(self.process.pid)

    def usage(self):
        memory = self.watched.memory_info().rss
        return memory, self.watched.num_threads(), self.watched.num_fds()

    def files(self):
        return sorted(str(path) for path in (self.folder / "data").rglob("*") if path.is_file())

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.stop()


def watch_mjpeg(server, id, seconds, counts, **options):
    until = time.monotonic() + seconds
    with httpx.stream("GET", f"{server.url}/v1/streams/{id}/mjpeg", params=options, timeout=60) as response:
        for chunk in response.iter_raw():
            counts["mjpeg"] += chunk.count(b"Content-Type: image/jpeg")
            if time.monotonic() > until:
                return


def watch_video(server, id, seconds, counts):
    until = time.monotonic() + seconds
    url = f"{server.url.replace('http', 'ws')}/v1/streams/{id}/video"
    with connect(url, max_size=None, open_timeout=60) as viewer:
        viewer.send(json.dumps({"options": {"opacity": 0.3}}))
        while time.monotonic() < until:
            counts["video"] += isinstance(viewer.recv(60), bytes)


def stay(server, id, seconds, counts):
    """Two viewers for the whole time."""
    threads = [
        threading.Thread(target=watch, args=(server, id, seconds, counts)) for watch in (watch_mjpeg, watch_video)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
        assert not thread.is_alive()


def come_and_go(server, client, id, seconds, counts):
    """Viewers of every kind, some of them for the whole time, and recordings that are deleted again."""
    until = time.monotonic() + seconds
    staying = [
        threading.Thread(target=watch_mjpeg, args=(server, id, seconds, counts)),
        threading.Thread(target=watch_video, args=(server, id, seconds, counts)),
    ]
    for thread in staying:
        thread.start()
    turn = 0
    while time.monotonic() < until:
        turn += 1
        recording = client.post(f"/v1/streams/{id}/recordings").json()["id"]
        watch_mjpeg(server, id, 2, counts, opacity=turn % 50 / 100)
        watch_video(server, id, 2, counts)
        assert client.get(f"/v1/streams/{id}/snapshot").status_code == 200
        assert client.post(f"/v1/recordings/{recording}/stop").json()["state"] == "finished"
        assert client.delete(f"/v1/recordings/{recording}").status_code == 204
        counts["turns"] += 1
    for thread in staying:
        thread.join(60)
        assert not thread.is_alive()


def at_rest(server, client):
    """Usage once all viewers have left, their threads have ended, and what they held is given back."""
    deadline = time.monotonic() + 60
    while any(s["viewers"] for s in client.get("/v1/streams").json()["streams"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(GIVING_BACK_S + 3)
    return server.usage()


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 2 * WARMUP_S + 400)
def test_nothing_grows_and_nothing_is_left(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.2)
        name = client.get("/v1/streams").json()["sources"][0]
        id = client.post("/v1/streams", json={"source": name}).json()["id"]
        counts = {"mjpeg": 0, "video": 0, "turns": 0}
        come_and_go(server, client, id, WARMUP_S, counts)
        turns = counts["turns"]
        memory, threads, descriptors = at_rest(server, client)
        files = server.files()
        counts.update(mjpeg=0, video=0)
        stay(server, id, SECONDS, counts)
        later_memory, *_ = at_rest(server, client)
        watched = dict(counts)
        come_and_go(server, client, id, WARMUP_S, counts)
        last_memory, later_threads, later_descriptors = at_rest(server, client)
        status = client.get(f"/v1/streams/{id}").json()
    assert status["state"] == "running"
    assert counts["turns"] > turns > 2
    assert watched["mjpeg"] > 5 * SECONDS
    assert watched["video"] > 5 * SECONDS
    print(f"resident memory: {memory / 1e6:.0f}, {later_memory / 1e6:.0f}, {last_memory / 1e6:.0f} MB; {watched}")
    assert later_memory - memory < GROWTH_BYTES
    assert last_memory - memory < GROWTH_BYTES
    # The event loop's pool starts its threads one by one; what were left behind by viewers would be dozens.
    assert later_threads <= threads + (os.cpu_count() or 1) + 4
    assert later_descriptors <= descriptors + 1  # a connection that the client keeps may be a newer one
    assert server.files() == files
