"""Checks of HTTP addresses for redirects, with time-outs and a limited number of threads.

Slow name servers and hosts that never answer must not delay others: checks have threads of their own, few at once, and
fewer for one host; when all are in use, clients are told to retry later.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from perception.server.problems import Busy, Forbidden, NotFound
from perception.sources.address import Address

DEADLINE_S = 5.0
"""Time-out of a check in seconds: name lookup, connecting, TLS, and the first line of the answer."""

AT_ONCE = 8
PER_HOST = 2

_MOST_LINE = 4096
_STATUS = re.compile(rb"(?:HTTP/[0-9](?:\.[0-9])?|ICY) ([0-9]{3})\b")

Found = TypeVar("Found")


def check_no_redirect(address: Address, hosts: Sequence[str], deadline: float) -> str:
    """Refuse an address that redirects to another one, which was not checked.

    Args:
        address: of a scheme ``http`` or ``https``.
        hosts: IP addresses that its host may have.
        deadline: ``time.monotonic()`` by which all must be done.

    Returns:
        the IP address that answered.

    Raises:
        Forbidden: it redirects.
        NotFound: there is no answer in time, or none that says 2xx.
    """
    reason = "nothing is listening there"
    for host in hosts:
        try:
            line = _first_line(address, host, deadline)
        except TimeoutError:
            raise NotFound(f"no answer from this address in {DEADLINE_S:g} s") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            continue
        status = _STATUS.match(line)
        if status is None:
            raise NotFound("this address is not a web server")
        code = int(status[1])
        if 300 <= code < 400:
            raise Forbidden("this address redirects to another one; give that one, if it is allowed")
        if not 200 <= code < 300:
            raise NotFound(f"the server at this address answers {code}")
        return host
    raise NotFound(f"no answer from this address: {reason}")


def _first_line(address: Address, host: str, deadline: float) -> bytes:
    """Request an address; return the first line of the answer.

    Raises:
        TimeoutError: it is not there in time.
        OSError: there is no connection.
    """
    path = address.tail.partition("#")[0]
    request = (
        f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1\r\nHost: {address.place}\r\n"
        "User-Agent: perception\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    connection = socket.create_connection((host, address.connect_port or 80), _left(deadline))
    try:
        if address.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname = False  # as FFmpeg does, which is going to read from it
            context.verify_mode = ssl.CERT_NONE
            connection.settimeout(_left(deadline))
            connection = context.wrap_socket(connection, server_hostname=address.host)
        connection.settimeout(_left(deadline))
        connection.sendall(request.encode("ascii"))
        line = b""
        while b"\n" not in line and len(line) < _MOST_LINE:
            connection.settimeout(_left(deadline))
            part = connection.recv(_MOST_LINE)
            if not part:
                break
            line += part
        return line
    finally:
        connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Questions:
    """Limited pool of daemon threads for calls that may wait for a host.

    Args:
        at_once: number of threads.
        per_host: number of threads for one host.
        deadline_s: seconds to wait for an answer. A thread may take longer: name lookups cannot be cancelled. Until
            it ends it counts.
    """

    def __init__(self, at_once: int = AT_ONCE, per_host: int = PER_HOST, deadline_s: float = DEADLINE_S + 1) -> None:
        self._at_once = at_once
        self._per_host = per_host
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()

    async def ask(self, host: str, question: Callable[[], Found]) -> Found:
        """Run ``question``, which asks ``host``, in a thread and return its answer.

        Raises:
            Busy: all threads are in use.
            NotFound: no answer in time.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Found] = loop.create_future()

        def tell(found: Found | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(found)  # type: ignore[arg-type]
            else:
                answer.set_exception(error)

        def work() -> None:
            found: Found | None = None
            error: BaseException | None = None
            try:
                found = question()
            except BaseException as failure:
                error = failure
            finally:
                with self._lock:
                    self._asked[host] -= 1
                    self._asked += Counter()  # drops those with none
            with suppress(RuntimeError):  # the server has stopped
                loop.call_soon_threadsafe(tell, found, error)

        with self._lock:
            if self._asked.total() >= self._at_once or self._asked[host] >= self._per_host:
                raise Busy("the server is waiting for other addresses that do not answer; try again shortly", 5.0)
            self._asked[host] += 1
        threading.Thread(target=work, name="perception-question", daemon=True).start()
        try:
            return await asyncio.wait_for(answer, self._deadline_s)
        except asyncio.TimeoutError:
            raise NotFound(f"no answer from this address in {self._deadline_s:g} s") from None
