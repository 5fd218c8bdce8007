"""Two hundred clients of a server: most behave, some do not, and how long one good client waits among them.

python -m tests.faults.clients URL SECONDS      # all but the attackers; prints what they were answered, as JSON
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.attack.attacker import Target
from tests.attack.attacks import ATTACKS
from tests.attack.good import GoodClient
from tests.attack.test_attack import GROWTH_BYTES, REST_S, at_rest, attack
from tests.attack.test_attack import outcome as attacked
from tests.faults.annotation import ROOT
from tests.faults.row import Outcome, Work
from tests.faults.served import client_of, grew
from tests.media import make_image
from tests.server.process import live

CLIENTS = 200
QUIET_S = 20.0
WARM_S = 30.0
"""Of the same clients: allocators, pools and caches then have what they will hold."""

POOL = (os.cpu_count() or 1) + 4
"""Threads of the event loop's pool, which starts them one by one."""

USER, PASSWORD = "maria", "a long pass phrase"


class Client:
    """One of the two hundred, with an address of its own.

    Attributes:
        answers: counts by status.
        wrong: answers that nobody may get.
    """

    def __init__(self, number: int, url: str) -> None:
        self.number = number
        self.own = f"127.0.2.{number + 1}"
        self.url = url
        self.until = 0.0
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(verify=False, local_address=self.own),
            base_url=url,
            auth=(USER, PASSWORD),
            timeout=60,
        )

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """A request of one that behaves: where it is told to come again later, it does."""
        try:
            answer = self.http.request(method, path, **options)
        except httpx.HTTPError as error:
            self.answers[type(error).__name__] += 1
            self.wrong.append(f"{method} {path}: {error!r}")
            return None
        self.answers[str(answer.status_code)] += 1
        if answer.status_code in (429, 503):
            self.rest(float(answer.headers.get("retry-after", "1")))
        elif answer.status_code >= 400:
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def rest(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        time.sleep(max(0.0, min(seconds, self.until - time.monotonic())))


def pictures(one: Client) -> None:
    one.ask("POST", "/v1/predict", content=PICTURE, headers={"content-type": "image/png"})
    one.rest(5)


def pages(one: Client) -> None:
    for path in ("/", "/v1/models", "/v1/streams", "/healthz"):
        one.ask("GET", path)
    one.rest(5)


def snapshots(one: Client) -> None:
    answer = one.ask("POST", "/v1/streams", json={"source": "scene"})
    if answer is not None and answer.status_code in (200, 201):
        one.ask("GET", f"/v1/streams/{answer.json()['id']}/snapshot")
    one.rest(4)


def motion_jpeg(one: Client) -> None:
    with suppress(httpx.HTTPError), one.http.stream("GET", "/v1/streams/scene/mjpeg") as answer:
        one.answers[f"mjpeg {answer.status_code}"] += 1
        if answer.status_code == 200:
            for _ in answer.iter_raw():
                if one.over:
                    return
    one.rest(5)


def webcam(one: Client) -> None:
    try:
        request = next(httpx.BasicAuth(USER, PASSWORD).sync_auth_flow(httpx.Request("GET", one.url)))
        headers = {"authorization": request.headers["authorization"]}
        url = one.url.replace("http", "ws") + "/v1/webcam"
        with connect(url, additional_headers=headers, source_address=(one.own, 0)) as camera:
            for number in range(30):
                camera.send(number.to_bytes(4, "little") + PICTURE)
                one.answers["frame" if isinstance(camera.recv(60), bytes) else "no frame"] += 1
                one.rest(1)
                if one.over:
                    return
    except (WebSocketException, OSError, TimeoutError) as error:
        one.answers[type(error).__name__] += 1
    one.rest(5)


def gone_in_the_middle(one: Client) -> None:
    """Begins an upload and is gone."""
    with suppress(OSError), socket.create_connection(_address(one.url), 10, source_address=(one.own, 0)) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(5000))
        one.answers["left"] += 1
        one.rest(0.5)
    one.rest(1)


def never_reads(one: Client) -> None:
    """Watches a stream, and takes nothing of what it is sent."""
    head = next(httpx.BasicAuth(USER, PASSWORD).sync_auth_flow(httpx.Request("GET", one.url))).headers["authorization"]
    with suppress(OSError), socket.create_connection(_address(one.url), 10, source_address=(one.own, 0)) as connection:
        request = f"GET /v1/streams/scene/mjpeg HTTP/1.1\r\nHost: x\r\nAuthorization: {head}\r\n\r\n"
        connection.sendall(request.encode())
        one.answers["does not read"] += 1
        one.rest(20)
    one.rest(1)


GOOD: tuple[Callable[[Client], None], ...] = (pictures, pictures, pages, snapshots, motion_jpeg, webcam)
BAD: tuple[Callable[[Client], None], ...] = (gone_in_the_middle, never_reads)
PICTURE = b""


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].rpartition(":")
    return host, int(port)


def main() -> None:
    """The program: all at once."""
    global PICTURE
    os.nice(15)
    url, seconds = sys.argv[1], float(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        PICTURE = make_image(Path(folder) / "p.png", size_wh=(320, 240)).read_bytes()
    clients = [Client(number, url) for number in range(CLIENTS - len(ATTACKS))]
    kinds = [BAD[n // 4 % len(BAD)] if n % 4 == 3 else GOOD[n % len(GOOD)] for n in range(len(clients))]
    threads = [threading.Thread(target=_live, args=pair, daemon=True) for pair in zip(clients, kinds, strict=True)]
    until = time.monotonic() + seconds
    for client in clients:
        client.until = until
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until + 90 - time.monotonic()))
    good = [(c, k) for c, k in zip(clients, kinds, strict=True) if k in GOOD]
    told = {
        "good": len(good),
        "answers": dict(sum((c.answers for c, _ in good), Counter())),
        "bad": dict(sum((c.answers for c, k in zip(clients, kinds, strict=True) if k in BAD), Counter())),
        "wrong": [line for c, _ in good for line in c.wrong],
        "waiting": sum(thread.is_alive() for thread in threads),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    os._exit(0)  # those who wait for ever are told, and not waited for


def _live(one: Client, kind: Callable[[Client], None]) -> None:
    one.rest(5 * one.number / CLIENTS)  # they do not come all at once
    while not one.over:
        kind(one)


def run(work: Work) -> Outcome:
    """A good client alone, then among two hundred for ``count`` seconds."""
    outcome = Outcome()
    with live(work.folder / "live", user=USER, password=PASSWORD, allow=["synthetic:*"]) as server:
        with client_of(server, auth=(USER, PASSWORD)) as client:
            client.post("/v1/streams", json={"source": "scene"})
        good = GoodClient(server.url, USER, PASSWORD)
        target = Target(server.url, USER, PASSWORD, "/none", "no such secret", f"{server.url}/none?to=", work.count)
        warm_s = min(WARM_S, work.count)
        crowd, attacking = _crowd(server.url, warm_s), attack(replace(target, seconds=warm_s))
        crowd.communicate(timeout=300)
        attacked(attacking)
        time.sleep(5)
        quiet = good.stay(QUIET_S)
        before = server.usage()
        crowd = _crowd(server.url, work.count)
        attacking = attack(target)
        served = good.stay(work.count)
        told = json.loads(crowd.communicate(timeout=300)[0])
        attacks = attacked(attacking)
        after = at_rest(server, before)
        rest = time.monotonic() + REST_S
        while after.threads > before.threads + POOL and time.monotonic() < rest:
            time.sleep(1)
            after = server.usage()
        said = server.said()
        outcome.times = CLIENTS
        outcome.check(server.running(), "the server has ended")
        outcome.check("Traceback" not in said, f"the log has {said[max(0, said.find('Traceback')) :][:800]}")
    outcome.wrong += told["wrong"][:20] + attacks["faults"][:20]
    later = [line for line in served.refused if "try again" in line]
    outcome.wrong += [line for line in served.refused if line not in later][:20]
    outcome.check(told["answers"], "no good client was answered")
    outcome.check(not told["waiting"], f"{told['waiting']} clients wait for an answer for ever")
    outcome.check(after.memory < before.memory + GROWTH_BYTES, f"memory: {before}, {after}")
    outcome.check(after.descriptors <= before.descriptors + 4, f"descriptors: {before}, {after}")
    outcome.check(after.threads <= before.threads + POOL, f"threads: {before}, {after}")
    for name, was, now in zip(("picture", "frame of a webcam"), quiet.medians_ms, served.medians_ms, strict=True):
        outcome.figures[f"a good client's {name}"] = f"{was:.0f} ms quiet, {now:.0f} ms among them: {now / was:.1f}x"
    outcome.figures["told to come again"] = f"{len(later)} of {len(served.pictures) + len(served.frames)}"
    outcome.figures["seconds"] = str(work.count)
    outcome.figures[f"{told['good']} good ones"] = ", ".join(f"{n} x {s}" for s, n in sorted(told["answers"].items()))
    outcome.figures["bad ones"] = ", ".join(f"{n} x {s}" for s, n in sorted(told["bad"].items()))
    outcome.figures["attacks"] = (
        f"{sum(sum(a.values()) for a in attacks['answers'].values())} requests of {len(ATTACKS)} kinds"
    )
    outcome.figures["server"] = grew(before, after)
    return outcome


def _crowd(url: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.clients", url, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


if __name__ == "__main__":
    main()
