"""Five minutes of attacks of every kind on the real service, and a good client that hardly notices: ``make attack``.

``PERCEPTION_ATTACK_SECONDS=3600`` makes it an hour, ``PERCEPTION_ATTACK_KINDS=gradio,headers`` tries these alone.

Attackers would be on other machines. Here they are on the server's own, so their process gets only what is left of its
processors (`tests.attack.attacks.give_way`): they compete for the server's attention, as they would from outside, and
not for its processors. How much each of them asked and was answered is printed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.attack.attacker import Target
from tests.attack.good import GoodClient
from tests.server.conftest import wait_until_ready
from tests.server.process import LiveProcess, live

SECONDS = float(os.environ.get("PERCEPTION_ATTACK_SECONDS", "300"))
KINDS = tuple(filter(None, os.environ.get("PERCEPTION_ATTACK_KINDS", "").split(",")))
WARMUP_S = min(30.0, SECONDS)
"""Of the same attacks: allocators, pools and caches then have what they will hold."""

QUIET_S = min(30.0, SECONDS)
REST_S = 90.0
"""Within so long after the attack everything is given back."""

GROWTH_BYTES = 100e6
KINDS_OF = {"pictures": "pictures", "webcam": "frames"}
LOG_BYTES = 100_000 + 1000 * SECONDS
USER, PASSWORD = "maria", "a long pass phrase"


@contextmanager
def redirector(host: str = "127.0.0.3") -> Iterator[str]:
    """A source that redirects to what follows its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", self.path.partition("?to=")[2])
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer((host, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_port}/x?to="
    finally:
        server.shutdown()
        server.server_close()


def throttled(client: httpx.Client) -> str:
    """What the server says of clients beyond their rates, and of refusals."""
    lines = client.get("/metrics").text.splitlines()
    return ", ".join(line.removeprefix("perception_") for line in lines if line.startswith(COUNTED))


COUNTED = ("perception_throttled_total", "perception_refused_total", "perception_pixels_in_progress_most")


def attack(target: Target) -> subprocess.Popen[str]:
    """All attacks, in a process of their own that gets what the server leaves of the cores."""
    command = [sys.executable, "-m", "tests.attack.attacks", json.dumps(asdict(target))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=300)
    found: dict[str, Any] = json.loads(said)
    return found


def at_rest(server: LiveProcess, before: Any) -> Any:
    """What the server holds, once it is what it was, or after a while."""
    until = time.monotonic() + REST_S
    while True:
        now = server.usage()
        rest = now.memory < before.memory + GROWTH_BYTES and now.descriptors <= before.descriptors + 4
        if rest or time.monotonic() > until:
            return now
        time.sleep(1)


def table(answers: dict[str, dict[str, int]]) -> str:
    lines = [f"{'attack':<18}{'requests':>9}{'refused':>9}  answers"]
    for kind, counts in answers.items():
        by_status = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
        refused = sum(count for status, count in counts.items() if status.startswith("4"))
        lines.append(f"{kind:<18}{sum(counts.values()):>9}{refused:>9}  {by_status}")
    return "\n".join(lines)


def percentiles(seconds: list[float]) -> str:
    """Of latencies, in milliseconds."""
    cuts = [0.0, *statistics.quantiles(seconds, n=20), 0.0] if len(seconds) > 1 else 22 * [*seconds, 0.0][:1]
    return ", ".join(f"p{5 * at} {1e3 * cuts[at]:.1f}" for at in (10, 15, 18, 19)) + " ms"


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 900)
def test_a_good_client_hardly_notices(tmp_path: Path) -> None:
    secret = os.urandom(16).hex()
    planted = tmp_path / "planted"
    planted.write_text(f"the secret is {secret}\n")
    with redirector() as leads:
        allowed = ["synthetic:*", leads.partition("?")[0] + "*"]
        with live(tmp_path / "live", user=USER, password=PASSWORD, allow=allowed) as server:
            with httpx.Client(base_url=server.url, auth=(USER, PASSWORD), timeout=60) as client:
                wait_until_ready(client, 600)
            good = GoodClient(server.url, USER, PASSWORD)
            target = Target(server.url, USER, PASSWORD, str(planted), secret, leads, WARMUP_S, KINDS)
            good.stay(2)
            warming = outcome(attack(target))
            time.sleep(30)  # what is given back in a while is
            quiet = good.stay(QUIET_S)
            before = server.usage()
            attacking = attack(Target(**{**asdict(target), "seconds": SECONDS}))
            served = good.stay(SECONDS)
            found = outcome(attacking)
            ended = server.usage()
            after = at_rest(server, before)
            said = server.said()
            with httpx.Client(base_url=server.url, auth=(USER, PASSWORD), timeout=60) as client:
                counted = throttled(client)
            print(f"\n{table(found['answers'])}")
            for name, was, now in zip(("pictures", "webcam"), quiet.medians_ms, served.medians_ms, strict=True):
                print(f"good client, {name}: median {was:.1f} ms quiet, {now:.1f} ms under attack")
                print(f"    quiet: {percentiles(getattr(quiet, KINDS_OF[name]))}")
                print(f"    under attack: {percentiles(getattr(served, KINDS_OF[name]))}")
            print(f"{len(served.pictures)} pictures and {len(served.frames)} frames, {len(served.refused)} refused")
            for name, figures in (("before", before), ("at the end of the attack", ended), ("at rest", after)):
                mb = figures.memory / 1e6
                print(f"{name}: {mb:.0f} MB, {figures.threads} threads, {figures.descriptors} open files")
            print(counted)
            print(f"log: {len(said)} bytes; its end:\n{said[-1500:]}")
            assert server.running()
        faults = warming["faults"] + found["faults"]
        assert not faults, "\n".join(faults)
        assert "Traceback" not in said, said[said.index("Traceback") - 500 :][:3000]
        assert secret not in said
        assert PASSWORD not in said
        assert len(said) < LOG_BYTES
        assert not served.refused, served.refused[:20]
        assert after.memory < before.memory + GROWTH_BYTES
        # The event loop's pool starts its threads one by one.
        assert after.threads <= before.threads + (os.cpu_count() or 1) + 4
        assert after.descriptors <= before.descriptors + 4
        for name, was, now in zip(("pictures", "webcam"), quiet.medians_ms, served.medians_ms, strict=True):
            assert now <= 2 * was, f"{name}: {now:.1f} ms under attack, {was:.1f} ms without"
        holds = [path for path in (tmp_path / "live" / "data").rglob("*") if path.is_file()]
        assert not [path for path in holds if secret.encode() in path.read_bytes()]
