"""An RTSP server that is stopped, or freezes, and is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import httpx

from tests.faults.row import NotHere, Outcome, Work, spread
from tests.faults.served import client_of, grew
from tests.media import make_video
from tests.server.process import live
from tests.server.rtsp_process import NEEDS, RtspProcess, missing

STEADY_S = 11.0
"""Between two faults: a stream that ran for ten seconds tries again at once, else after longer and longer pauses."""

LONGEST_S = 60.0
WAYS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)


def run(work: Work) -> Outcome:
    """Stop it in one of three ways for a while, start it, and wait for the next picture."""
    problem = missing()
    if problem:
        raise NotHere(f"no RTSP server ({problem}); {NEEDS}")
    outcome = Outcome()
    video = make_video(work.folder / "v.mp4", frames=3000, fps=25, keyint=25)
    camera = RtspProcess(video)
    camera.start()
    recovered: list[float] = []
    try:
        uri = f"rtsp://127.0.0.1:{camera.port}/live"
        with live(work.folder / "live", sources={"camera": uri}) as server, client_of(server) as client:
            client.post("/v1/streams", json={"source": "camera"})
            frames = _more(client, 0)
            before = server.usage()
            for number in range(work.count):
                way = WAYS[number % len(WAYS)]
                with outcome.trial(f"{way.name}, the {number}th"):
                    _steady(client)
                    if number == min(5, work.count // 2):
                        before = server.usage()  # allocators and pools have what they will hold
                    camera.process.send_signal(way)  # type: ignore[union-attr]
                    away = work.random.uniform(0.2, 3.0) if way != signal.SIGSTOP else work.random.uniform(11, 13)
                    time.sleep(away)
                    if way == signal.SIGSTOP:
                        camera.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
                    else:
                        camera.stop()
                        camera.start()
                    frames = int(client.get("/v1/streams/camera").json()["frames"])
                    began = time.monotonic()
                    _more(client, frames)
                    recovered.append(time.monotonic() - began)
            _steady(client, 3)
            status = client.get("/v1/streams/camera").json()
            after = server.usage()
            outcome.check(status["state"] == "running", f"in the end it is {status['state']}")
            outcome.check("Traceback" not in server.said(), "a traceback in the log")
            outcome.check(after.threads <= before.threads + (os.cpu_count() or 1) + 4, f"threads: {before}, {after}")
            outcome.check(after.descriptors <= before.descriptors + 4, f"descriptors: {before}, {after}")
            outcome.check(after.memory < before.memory + 60e6, f"memory: {before}, {after}")
    except (httpx.HTTPError, subprocess.TimeoutExpired) as error:
        outcome.wrong.append(f"{type(error).__name__}: {error}")
        return outcome
    finally:
        camera.end()
    outcome.figures["recovered"] = f"{len(recovered)} of {outcome.times}"
    outcome.figures["from its start to a picture"] = spread(recovered, "s")
    outcome.figures["reconnects"] = str(status["reconnects"])
    outcome.figures["server"] = grew(before, after)
    return outcome


def _more(client: httpx.Client, frames: int) -> int:
    """Frames of the stream, once there are more."""
    until = time.monotonic() + LONGEST_S
    while True:
        status = client.get("/v1/streams/camera").json()
        if status["frames"] > frames and status["state"] == "running":
            return int(status["frames"])
        assert time.monotonic() < until, f"no picture in {LONGEST_S:g} s: {status['state']}, {status['message']}"
        time.sleep(0.02)


def _steady(client: httpx.Client, seconds: float = STEADY_S) -> None:
    """Until it has run for a while."""
    since = time.monotonic()
    limit = since + 5 * LONGEST_S
    while time.monotonic() < since + seconds:
        status = client.get("/v1/streams/camera").json()
        if status["state"] != "running":
            since = time.monotonic()
        assert time.monotonic() < limit, f"it does not run steadily: {status['state']}, {status['message']}"
        time.sleep(0.1)
