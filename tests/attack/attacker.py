"""One attacker of the live service: an address, its requests, and what they were answered.

What it asks with ``Attacker.ask`` is counted by status, and looked through for the secret that was planted.
"""

from __future__ import annotations

import base64
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Target:
    """What is attacked.

    Attributes:
        url: of the server.
        user, password: what it is guarded with; some attackers have them.
        planted: a file that nobody may see, which holds ``secret``.
        redirector: an allowed source that redirects to what follows it.
        seconds: how long.
        kinds: names of attacks; all where there are none.
    """

    url: str
    user: str
    password: str
    planted: str
    secret: str
    redirector: str
    seconds: float
    kinds: tuple[str, ...] = ()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.partition("://")[2].rpartition(":")
        return host, int(port)


class Attacker:
    """One kind of attack, under way."""

    def __init__(self, kind: str, number: int, target: Target) -> None:
        self.kind = kind
        self.own = f"127.0.1.{number}"
        self.target = target
        self.until = time.monotonic() + target.seconds
        self.random = random.Random(number)
        self.answers: Counter[str] = Counter()
        self.faults: dict[str, str] = {}  # the first of each kind
        transport = httpx.HTTPTransport(local_address=self.own)
        auth = (target.user, target.password)
        self.inside = httpx.Client(transport=transport, base_url=target.url, auth=auth, timeout=60)
        self.outside = httpx.Client(
            transport=httpx.HTTPTransport(local_address=self.own), base_url=target.url, timeout=60
        )

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until

    def ask(self, method: str, path: str, inside: bool = True, **options: Any) -> httpx.Response | None:
        """A request, whatever becomes of it."""
        try:
            answer = (self.inside if inside else self.outside).request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.answers[type(error).__name__] += 1
            return None
        self.look(answer.status_code, answer.content, f"{method} {path}")
        return answer

    def look(self, status: int | str, content: bytes, what: str) -> None:
        """Count an answer, and look for what must not be in it."""
        self.answers[str(status)] += 1
        if status == 500 or b"Traceback" in content:
            self.fault(str(status), f"for {what[:200]}: {content[:200]!r}")
        if self.target.secret.encode() in content:
            self.fault("the planted file", f"by {what[:200]}")

    def fault(self, kind: str, text: str) -> None:
        """What must not happen, and did."""
        self.faults.setdefault(f"{kind} {text[:40]}", f"{self.kind}: {kind} {text}")

    def connect(self) -> socket.socket:
        return socket.create_connection(self.target.address, timeout=30, source_address=(self.own, 0))

    def say(self, data: bytes, timeout_s: float = 2.0) -> None:
        """Bytes, and what comes back."""
        try:
            with self.connect() as connection:
                connection.settimeout(timeout_s)
                connection.sendall(data)
                self.see(connection, data)
        except OSError as error:
            self.answers[type(error).__name__] += 1

    def see(self, connection: socket.socket, data: bytes) -> None:
        answer = connection.recv(65536)
        status = answer.split()[1].decode("latin-1")[:3] if answer.startswith(b"HTTP/") else "closed"
        self.look(int(status) if status.isdecimal() else status, answer, repr(data[:100]))

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.target.user}:{self.target.password}".encode()).decode()
