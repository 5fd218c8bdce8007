"""The machine's time is set back and ahead under a running server, by libfaketime."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.faults.outputs import times_of
from tests.faults.row import NotHere, Outcome, Work
from tests.faults.served import VIDEO, client_of, clip_in, job_ended, results_of
from tests.server.process import live

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")
FRAMES = 50
JUMPS_S = (400 * 86400, -800 * 86400, 3 * 3600, -3 * 3600, 90, -90, 30 * 365 * 86400, -40 * 365 * 86400)


def library() -> str:
    """The library that sets a process's time.

    Raises:
        NotHere: it is not installed.
    """
    for pattern in LIBRARIES:
        found = sorted(Path("/").glob(pattern[1:]))
        if found:
            return str(found[0])
    raise NotHere("no libfaketime (`apt-get install libfaketime`)")


def run(work: Work) -> Outcome:
    """Set it, with a stream, a recording and a finished job there, and send another job."""
    outcome = Outcome()
    said = work.folder / "time"
    said.write_text("+0")
    # Nobody can set the clock that timers go by; files keep the times that they had.
    environment = {
        "LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": str(said), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip
    # With kernels that are compiled: a process that has this library in it must not start others, or it may hang.
    with live(work.folder / "first") as server, client_of(server):
        pass
    clip = clip_in(work.folder, FRAMES)
    ahead, gaps, reached = 0, [0.0], [0, 0]
    with live(work.folder / "live", environment=environment) as server, client_of(server) as client:
        stream = client.post("/v1/streams", json={"source": "scene"}).json()["id"]
        finished: list[str] = []
        for number in range(work.count):
            jump = JUMPS_S[number % len(JUMPS_S)]
            with outcome.trial(f"set by {jump} s"):
                _progress(client, stream)
                recording = client.post(f"/v1/streams/{stream}/recordings").json()["id"]
                time.sleep(1)
                ahead += jump
                said.write_text(f"{ahead:+d}")
                gaps.append(_progress(client, stream))
                time.sleep(1)
                _recording(client, recording)
                address = client.post("/v1/jobs", content=clip, headers=VIDEO).headers["location"]
                job = job_ended(client, address)
                created = datetime.fromisoformat(job["created"].replace("Z", "+00:00")).timestamp()
                assert abs(created - time.time() - ahead) < 300, f"the time was not set: {job['created']}"
                assert job["state"] == "done", job["error"]
                finished.append(address)
                listed = [f"/v1/jobs/{job['id']}" for job in client.get("/v1/jobs").json()]
                assert listed == finished[::-1], "jobs are gone, or not in their order"
                assert all(results_of(client, a) == list(range(FRAMES)) for a in finished), "results are gone"
                reached = [min(reached[0], ahead), max(reached[1], ahead)]
        outcome.check("Traceback" not in server.said(), f"the log has {server.said()[-800:]}")
    outcome.figures["set from"] = f"{reached[0] / 86400:.0f} to {reached[1] / 86400:.0f} days"
    outcome.figures["longest pause of the stream"] = f"{max(gaps):.1f} s"
    outcome.figures["jobs kept"] = str(len(finished))
    return outcome


def _progress(client: httpx.Client, stream: str) -> float:
    """Wait for ten frames more; the seconds until the next one came."""
    began = time.monotonic()
    first = client.get(f"/v1/streams/{stream}").json()
    came: float | None = None
    while True:
        now: dict[str, Any] = client.get(f"/v1/streams/{stream}").json()
        if came is None and now["frames"] > first["frames"]:
            came = time.monotonic() - began
        if came is not None and now["frames"] >= first["frames"] + 10:
            assert now["state"] == "running" and now["reconnects"] == first["reconnects"], now
            return came
        assert time.monotonic() - began < 60, f"the stream does not go on: {now}"
        time.sleep(0.05)


def _recording(client: httpx.Client, recording: str) -> None:
    stopped = client.post(f"/v1/recordings/{recording}/stop").json()
    assert stopped["state"] == "finished", stopped
    video = client.get(f"/v1/recordings/{recording}/video")
    assert video.status_code == 200, video.text
    path = Path("/dev/shm") / f"{recording}.mp4"
    try:
        path.write_bytes(video.content)
        times = times_of(path)
    finally:
        path.unlink(missing_ok=True)
    assert times == sorted(times) and times[-1] < 120, f"its times go from {times[0]} to {times[-1]}"
    assert abs(stopped["seconds"] - times[-1]) < 1, f"{stopped['seconds']} s are {times[-1]} s"
