"""A local relay to one RTSP server that cannot be redirected elsewhere.

FFmpeg follows a server's redirect to any host and port and cannot be told not to. So an address that a client chose is
opened through a port of this machine: `RtspRelay` connects to the server, at an address that was checked, and forwards
what both say. Answers are rewritten, line by line, so that FFmpeg reads in them what was read here. A redirect
ends it; so does a wish for another way of transport than this connection.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from perception.common.bounds import Bounds
from perception.sources.address import Address

_MOST_HEAD = 32 << 10
_MOST_BODY = 256 << 10
_MOST_LINE = 3500  # FFmpeg cuts longer ones off
_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(r"RTSP/1\.[0-9] ([0-9]{3})\b")
_REQUEST = re.compile(r"[A-Z_]{2,20} \S+ RTSP/1\.[0-9]")
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9\-]*)\s*:\s*(.*)")


class _RefusedError(Exception):
    """A message that must not be forwarded."""


class RtspRelay:
    """Relay between one connection on 127.0.0.1 and a server.

    Args:
        address: the server, and what is asked of it.
        hosts: names or IP addresses under which it is reached; the first one that answers is taken.
        timeout: seconds to wait for the connection, and for what is sent to be taken.
        bounds: told of the thread.

    Attributes:
        url: what to open instead of the address.
        refused: why the connection was ended from here, or nothing.
    """

    def __init__(self, address: Address, hosts: Sequence[str], timeout: float, bounds: Bounds) -> None:
        self.refused = ""
        self._address = address
        self._hosts = hosts
        self._timeout = timeout
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._sockets: list[socket.socket] = []
        self._here = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = self._here + address.tail.partition("#")[0]
        bounds.start(self._run, "relay")

    def close(self) -> None:
        """End both connections. Safe to call twice and from any thread."""
        self._closed.set()
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # unlike closing it, wakes who waits for it

    def _run(self) -> None:
        try:
            server = self._reach()
            self._listener.settimeout(self._timeout)
            client, _ = self._listener.accept()
            self._listener.close()  # nobody else
            client.settimeout(self._timeout)
            self._sockets.append(client)
            if not self._closed.is_set():
                self._join(client, server)
        except _RefusedError as error:
            self.refused = str(error)
        except OSError:
            pass  # either side has gone, which FFmpeg tells in its own words
        finally:
            for each in (self._listener, *self._sockets):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def _reach(self) -> socket.socket:
        deadline = time.monotonic() + self._timeout
        error: OSError | None = None
        for host in self._hosts:
            left = deadline - time.monotonic()
            if left <= 0 or self._closed.is_set():
                break
            try:
                server = socket.create_connection((host, self._address.connect_port or 554), left)
                self._sockets.append(server)
                server.settimeout(self._timeout)
                if self._address.scheme == "rtsps":
                    server = _encrypted(server, self._address.host)
                    self._sockets.append(server)
                return server
            except OSError as failure:
                error = failure
        if isinstance(error, ConnectionRefusedError):
            raise _RefusedError("the connection was refused; is the server running on that port?")
        if error is None or isinstance(error, TimeoutError):
            raise _RefusedError(f"no answer in {self._timeout:g} s")
        raise _RefusedError(f"cannot be reached: {error.strerror or type(error).__name__}")

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        """Forward messages until either side closes its connection."""
        answers, requests = _Messages(self._answer), _Messages(self._request)
        while not self._closed.is_set():
            ready: list[socket.socket] = [server] if _holds_more(server) else []
            if not ready:
                ready, _, _ = select.select([client, server], [], [])
            for source in ready:
                data = source.recv(1 << 16)
                if not data:
                    return
                messages, target = (requests, server) if source is client else (answers, client)
                for message in messages.read(data):
                    target.sendall(message)

    def _answer(self, lines: list[str]) -> list[str]:
        """Return the lines of a server's message that are forwarded."""
        status = _STATUS.match(lines[0])
        if status is None and not _REQUEST.fullmatch(lines[0]):
            raise _RefusedError("this address is not an RTSP server")
        if status is not None and status[1].startswith("3"):
            raise _RefusedError("this address redirects to another one; give that one, if it is allowed")
        return [line for line in lines if not line.lower().startswith("location:")]

    def _request(self, lines: list[str]) -> list[str]:
        """Return FFmpeg's request with the server's address in place of ours."""
        for line in lines[1:]:
            if line.lower().startswith("transport:") and "/tcp" not in line.lower():
                raise _RefusedError("only streams over the RTSP connection itself are accepted from this address")
        there = f"{self._address.scheme}://{self._address.place}"
        return [line.replace(self._here, there) for line in lines]


class _Messages:
    """Parser of one side's bytes: text messages, and packets of media between them.

    Args:
        change: returns the lines to forward for those of a message.
    """

    def __init__(self, change: Callable[[list[str]], list[str]]) -> None:
        self._change = change
        self._rest = b""

    def read(self, data: bytes) -> Iterator[bytes]:
        """Yield what can be forwarded: whole messages, and runs of packets."""
        rest = self._rest + data
        at = 0
        while True:
            packets = _after_packets(rest, at)
            if packets > at:
                yield rest[at:packets]
            at = packets
            while rest[at : at + 1] in (b"\r", b"\n"):
                at += 1
            if rest[at : at + 1] == b"$":
                if _after_packets(rest, at) == at:
                    break
                continue
            head = _END.search(rest, at)
            if head is None:
                if len(rest) - at > _MOST_HEAD:
                    raise _RefusedError("this address is not an RTSP server")
                break
            lines = _lines(rest[at : head.start()])
            end = head.end() + _length(lines)
            if len(rest) < end:
                break
            yield self._rewritten(lines, rest[head.end() : end])
            at = end
        self._rest = rest[at:]

    def _rewritten(self, lines: list[str], body: bytes) -> bytes:
        """Return the message without ambiguities: one line per header, one length, no odd characters."""
        kept = [line for line in lines[1:] if not line.lower().startswith(("content-length:", "transfer-encoding:"))]
        text = self._change([lines[0], *kept])
        if body:
            text.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*text, "", ""]).encode("ascii") + body


def _after_packets(data: bytes, at: int) -> int:
    """Return the end of the whole packets that begin at ``at``: ``$``, a channel, and the length in two bytes."""
    while data[at : at + 1] == b"$" and len(data) >= at + 4:
        end = at + 4 + int.from_bytes(data[at + 2 : at + 4], "big")
        if len(data) < end:
            break
        at = end
    return at


def _lines(head: bytes) -> list[str]:
    """Return the first line and the headers, each ``Name: value`` in printable ASCII; anything else is left out."""
    first, *rest = re.split(r"\r?\n", head.decode("latin-1"))
    lines = [first]
    for line in rest:
        header = _HEADER.fullmatch(line)
        if header is not None:
            lines.append(f"{header[1]}: {header[2].strip()}")
    plain = ["".join(c if " " <= c <= "~" else "?" for c in line) for line in lines]
    return [plain[0][:_MOST_LINE], *(line for line in plain[1:] if len(line) <= _MOST_LINE)]


def _length(lines: list[str]) -> int:
    """Return the length of the body in bytes."""
    told = {line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("content-length:")}
    if not told:
        return 0
    length = told.pop()
    if told or not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > _MOST_BODY:
        raise _RefusedError("the server sends an impossible length")
    return int(length)


def _encrypted(server: socket.socket, host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False  # as FFmpeg does: cameras have certificates of their own making
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(server, server_hostname=host)


def _holds_more(connection: socket.socket) -> bool:
    """Return whether there are decrypted bytes that ``select`` does not know of."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
