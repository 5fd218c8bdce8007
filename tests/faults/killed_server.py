"""A server that is killed at a random moment of a job's life, and started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx

from tests.faults.row import Outcome, Work, spread
from tests.faults.served import VIDEO, client_of, clip_in, job_ended, results_of
from tests.server.process import LiveProcess

FRAMES = 400
STATES = ("receiving", "queued", "running", "done", "failed")


def run(work: Work) -> Outcome:
    """Send a job, kill the server once, or twice, and see what the next one makes of the job."""
    outcome = Outcome()
    clip = clip_in(work.folder, FRAMES)
    ends: dict[str, int] = {}
    took: list[float] = []
    folder = work.folder / "live"
    server = LiveProcess(folder)
    try:
        for number in range(work.count):
            kills = 2 if number % 4 == 3 else 1
            with outcome.trial(f"job {number}, killed {kills} times"):
                addresses: list[str] = []
                seen: list[str] = []
                sender = threading.Thread(target=_send, args=(server.url, clip, addresses), daemon=True)
                with client_of(server):
                    pass
                sender.start()
                for state in work.random.choices(("receiving", "queued", "running"), k=kills):
                    _wait_for(server, state)
                    time.sleep(work.random.uniform(0, 1))
                    server.kill()
                    server = LiveProcess(folder)
                    began = time.monotonic()
                sender.join(300)
                with client_of(server) as client:
                    for job in client.get("/v1/jobs").json():
                        address = f"/v1/jobs/{job['id']}"
                        ended = job_ended(client, address)
                        ends[_word(ended)] = ends.get(_word(ended), 0) + 1
                        if ended["state"] == "done":
                            assert results_of(client, address) == list(range(FRAMES)), "its results are not whole"
                            took.append(time.monotonic() - began)
                        else:
                            known = (
                                "cut off" in ended["error"],
                                f"ended {kills} times" in ended["error"] and kills > 1,
                            )
                            assert any(known), ended["error"]
                        assert client.delete(address).status_code == 204
                        seen.append(address)
                # A client who was told that its video is taken must find it.
                assert set(addresses) <= set(seen), "a job is gone"
                left = [path.name for path in (folder / "data" / "jobs").iterdir() if path.is_dir()]
                assert not left, f"folders left: {left}"
    finally:
        server.stop()
    outcome.figures |= {word: str(count) for word, count in sorted(ends.items())}
    outcome.figures["done after the start"] = spread(took, "s")
    return outcome


def _wait_for(server: LiveProcess, state: str) -> None:
    """Until the job is in that state, or is past it."""
    past = STATES[STATES.index(state) :]
    until = time.monotonic() + 300
    with client_of(server) as client:
        while not any(job["state"] in past for job in client.get("/v1/jobs").json()):
            assert time.monotonic() < until, f"no job is {state}"
            time.sleep(0.02)


def _send(url: str, clip: bytes, addresses: list[str]) -> None:
    """In pieces, so that the upload takes about a second."""

    def pieces() -> Iterator[bytes]:
        size = len(clip) // 10 + 1
        for at in range(0, len(clip), size):
            yield clip[at : at + size]
            time.sleep(0.1)

    headers = {**VIDEO, "content-length": str(len(clip))}
    with suppress(httpx.HTTPError, KeyError), httpx.Client(base_url=url, timeout=300) as client:
        addresses.append(client.post("/v1/jobs", content=pieces(), headers=headers).headers["location"])


def _word(job: dict[str, object]) -> str:
    if job["state"] == "done":
        return "done"
    return "marked as cut off" if "cut off" in str(job["error"]) else "marked as the cause"
