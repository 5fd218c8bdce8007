"""`perception live` for as long as is asked, with viewers who stay and viewers who come and go."""

from __future__ import annotations

import os
import time

import httpx

from tests.faults.row import Outcome, Work
from tests.faults.served import grew
from tests.server.process import ResourceUsage
from tests.server.test_soak import GROWTH_BYTES, Server, at_rest, come_and_go, stay

TURNS_S = 60


def run(work: Work) -> Outcome:
    """Warm up, hold on for ``count`` seconds, and compare what the server holds, at rest."""
    outcome = Outcome(times=1)
    turns = min(TURNS_S, max(10, work.count // 3))
    server = Server(work.folder)
    try:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.2)
            name = client.get("/v1/streams").json()["sources"][0]
            id = client.post("/v1/streams", json={"source": name}).json()["id"]
            counts = {"mjpeg": 0, "video": 0, "turns": 0}
            come_and_go(server, client, id, turns, counts)
            before, files = ResourceUsage(*at_rest(server, client)), server.files()
            stay(server, id, work.count, counts)
            come_and_go(server, client, id, turns, counts)
            after = ResourceUsage(*at_rest(server, client))
            outcome.check(client.get(f"/v1/streams/{id}").json()["state"] == "running", "the stream does not run")
        outcome.check(after.memory - before.memory < GROWTH_BYTES, f"memory: {before}, {after}")
        outcome.check(after.threads <= before.threads + (os.cpu_count() or 1) + 4, f"threads: {before}, {after}")
        outcome.check(after.descriptors <= before.descriptors + 1, f"descriptors: {before}, {after}")
        outcome.check(server.files() == files, f"files left: {set(server.files()) - set(files)}")
    finally:
        server.stop()
    outcome.figures["seconds"] = str(work.count)
    outcome.figures["viewers got"] = f"{counts['video']} segments, {counts['mjpeg']} JPEG"
    outcome.figures["recordings"] = str(counts["turns"])
    outcome.figures["server"] = grew(before, after)
    outcome.figures["files left"] = "0"
    return outcome
