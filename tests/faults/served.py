"""``perception live`` for the rows: waiting for it, its jobs, and what it holds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.media import make_video
from tests.server.process import LiveProcess, ResourceUsage

VIDEO = {"content-type": "video/mp4"}


@contextmanager
def client_of(server: LiveProcess, **options: Any) -> Iterator[httpx.Client]:
    """A client of the server, whose model is loaded."""
    with httpx.Client(base_url=server.url, timeout=120, **options) as client:
        until = time.monotonic() + 180
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < until, "the model is not loaded"
            time.sleep(0.05)
        yield client


def clip_in(folder: Path, frames: int) -> bytes:
    """A video that shows the numbers of its frames."""
    return make_video(folder / "clip.mp4", frames=frames, fps=25).read_bytes()


def job_ended(client: httpx.Client, address: str, seconds: float = 300) -> dict[str, Any]:
    """A job, once it has ended."""
    until = time.monotonic() + seconds
    while (job := client.get(address).json())["state"] not in ("done", "failed"):
        assert time.monotonic() < until, f"the job is {job['state']} after {seconds:g} s: {job['progress']}"
        time.sleep(0.1)
    found: dict[str, Any] = job
    return found


def results_of(client: httpx.Client, address: str) -> list[int]:
    """Numbers of the frames in the JSON Lines of a job that is done."""
    return [json.loads(line)["index"] for line in client.get(f"{address}/jsonl").text.splitlines()]


def grew(before: ResourceUsage, after: ResourceUsage) -> str:
    """Memory, threads and descriptors, for the table."""
    return (
        f"{before.memory >> 20} to {after.memory >> 20} MB, threads {before.threads} to {after.threads}, "
        f"descriptors {before.descriptors} to {after.descriptors}"
    )
