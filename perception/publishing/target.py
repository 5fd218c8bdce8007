"""One target that encoded video is published to: its connection, what waits for it, and how it does."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from perception.common.backoff import back_off
from perception.common.programs import program
from perception.common.text import counted
from perception.errors import SinkError
from perception.publishing import process as connection
from perception.publishing.address import PublishAddress
from perception.publishing.process import CONNECT_S, STUCK_S, EncodedPacket
from perception.sources.address import unknown_host
from perception.sources.uri import redact_text

log = logging.getLogger("perception")

State = Literal["connecting", "sending", "away", "failed"]

WAITING = 60
"""Packets that may wait for a target; one that is further behind goes on with the next key frame."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""The pauses before a target is tried again, doubled each time."""

SETTLED_S = 10.0
"""After a connection of so many seconds the pauses start from the first one again."""


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """How a target does.

    Attributes:
        kind: the scheme of its address; the address itself may be nobody's business.
        state: ``connecting`` for the first time, ``sending``, ``away`` (tried again), ``failed`` (not tried again).
        sent: frames that its connections took.
        dropped: frames that it lacks: it was away, or too slow. Those of the first connecting do not count.
        connections: how many there have been.
        problem: one clause on why it is away or has failed; else nothing.
    """

    kind: str
    state: State
    sent: int
    dropped: int
    connections: int
    problem: str


class PublishTarget:
    """Sends packets to one address, in a thread and processes of its own.

    A target that is away is connected to again and again, after pauses that grow; who gives packets never waits for it.

    Args:
        address: where to.
        live: see `PublishAddress.options`.
        head: see `perception.publishing.process.ask`.
        wants_key: called when the next frame should be a key frame, from any thread.
        lossless: `put` waits where the target is slow, and the first failure is the end: what is published is a file
            that becomes another one.
        umask: of the files of HLS; None: that of this process.
    """

    def __init__(
        self,
        address: PublishAddress,
        live: bool,
        head: bytes,
        wants_key: Callable[[], None],
        lossless: bool = False,
        umask: int | None = None,
    ) -> None:
        self._address = address
        self._asked = connection.ask(address.url, address.muxer, address.options(live), head)
        self._wants_key = wants_key
        self._lossless = lossless
        self._umask = -1 if umask is None else umask
        self._changed = threading.Condition()
        self._waiting: deque[EncodedPacket] = deque()
        self._waits_for_key = True
        self._state: State = "connecting"
        self._problem = ""
        self._sent = self._dropped = self._connections = 0
        self._away_since = 0.0
        self._dropped_before = 0
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline = float("inf")  # when the connection is given up, if nothing moves until then
        self._thread = threading.Thread(target=self._run, name=f"perception-publish {address.kind}", daemon=True)
        self._thread.start()

    @property
    def status(self) -> PublishStatus:
        """How it does."""
        with self._changed:
            return PublishStatus(
                self._address.kind, self._state, self._sent, self._dropped, self._connections, self._problem
            )

    def wait(self, seconds: float) -> bool:
        """Wait until it is connected or known not to be; whether it is connected."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != "connecting", seconds)
            return self._state == "sending"

    def put(self, packet: EncodedPacket) -> None:
        """Take a packet.

        Raises:
            SinkError: nothing more will be sent, where it is ``lossless``.
        """
        self._give_up_if_stuck()
        if self._lossless:
            self._wait_for_room()
        with self._changed:
            if self._state != "sending" and not self._lossless:
                self._dropped += self._state != "connecting"
                return
            if len(self._waiting) >= WAITING:
                self._dropped += len(self._waiting)
                self._waiting.clear()
                self._waits_for_key = True
            if self._waits_for_key and not packet.key:
                self._dropped += self._connections > 1 or self._sent > 0
                return
            self._waits_for_key = False
            self._waiting.append(packet)
            self._changed.notify_all()

    def _wait_for_room(self) -> None:
        with self._changed:
            while self._state != "failed" and len(self._waiting) >= WAITING:
                self._changed.wait(0.5)
                self._give_up_if_stuck()
            if self._state == "failed":
                raise SinkError(self._problem, self._address.shown)

    def finish(self) -> None:
        """No more packets will come. Returns at once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, deadline: float) -> None:
        """Let it send what waits, until ``deadline`` by the monotonic clock, and end it."""
        self.finish()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End it at once, without a goodbye."""
        while self._thread.is_alive():
            self._deadline = 0.0
            self._give_up_if_stuck()
            self.finish()
            self._thread.join(0.1)

    def _give_up_if_stuck(self) -> None:
        process = self._process
        if process is not None and time.monotonic() > self._deadline:
            process.kill()

    # In its thread.

    def _run(self) -> None:
        failures = 0
        while not self._closing:
            began = time.monotonic()
            problem, final = self._connection()
            if not problem:  # the end
                return
            lasted = self._state == "sending" and time.monotonic() - began > SETTLED_S
            failures = 1 if lasted else failures + 1
            self._fail(problem, final or self._lossless)
            if self._state == "failed":
                return
            with self._changed:
                self._changed.wait_for(lambda: self._closing, back_off(failures, FIRST_PAUSE_S, LONGEST_PAUSE_S))

    def _fail(self, problem: str, final: bool) -> None:
        was = self._state
        with self._changed:
            self._dropped += len(self._waiting)
            self._waiting.clear()
            self._state, self._problem = "failed" if final else "away", problem
            self._changed.notify_all()
        if self._closing or self._lossless:  # told at the end, by whoever closes it
            return
        if final:
            log.warning("%s: not published any more: %s", self._address.shown, problem)
        elif was != "away":
            self._away_since, self._dropped_before = time.monotonic(), self._dropped
            log.warning("%s: not published, and tried again: %s", self._address.shown, problem)

    def _connection(self) -> tuple[str, bool]:
        """Connect, and send until the end or until the connection is lost.

        Returns:
            why it was lost, or nothing; and whether trying again is of no use.
        """
        self._deadline = time.monotonic() + CONNECT_S
        try:
            process = subprocess.Popen(
                program(connection.__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, umask=self._umask,
            )  # fmt: skip
        except OSError as error:
            return f"no process can be started: {error.strerror}", False
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        said: dict[str, object] = {}
        try:
            with suppress(OSError):  # it has ended, and said why, unless it was ended
                process.stdin.write(self._asked)
                process.stdin.flush()
                said = _read(process)
                if "open" in said:
                    self._opened()
                    self._send(process)
                    said = {}
            with suppress(OSError):
                process.stdin.close()
            said = said or _read(process)
            code = process.wait()
        finally:
            self._process = None
            process.kill()
            process.wait()
            process.stdout.close()
        if "error" in said:
            return why(said, self._address.url)
        if time.monotonic() > self._deadline:
            return ("it took nothing any more" if self._state == "sending" else "no answer in time"), False
        return (f"its process ended with {code}" if code else ""), False

    def _opened(self) -> None:
        with self._changed:
            was, self._state, self._problem = self._state, "sending", ""
            self._connections += 1
            self._waits_for_key = True
            self._changed.notify_all()
        self._wants_key()
        if was == "away":
            lost = counted(self._dropped - self._dropped_before, "frame")
            seconds = time.monotonic() - self._away_since
            log.warning("%s: published again after %.0f s, without %s", self._address.shown, seconds, lost)

    def _send(self, process: subprocess.Popen[bytes]) -> None:
        """Send packets until there are none any more."""
        assert process.stdin is not None
        origin: int | None = None
        while True:
            self._deadline = float("inf")
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing or process.poll() is not None, 1.0)
                if process.poll() is not None or (self._closing and not self._waiting):
                    break
                if not self._waiting:
                    continue
                packet = self._waiting.popleft()
                self._changed.notify_all()
            origin = packet.pts if origin is None else origin
            self._deadline = time.monotonic() + STUCK_S
            process.stdin.write(connection.framed(packet, origin))
            process.stdin.flush()
            self._sent += 1
        self._deadline = time.monotonic() + STUCK_S


def why(said: Mapping[str, object], url: str) -> tuple[str, bool]:
    """Say in one clause, without the address, why there is no connection; and whether trying again is of no use.

    Args:
        said: by `perception.publishing.process`.
        url: what was opened.
    """
    kind, number, text = str(said["error"]), said["errno"], redact_text(str(said["text"]), url)
    if kind == "ProtocolNotFoundError":
        return "FFmpeg, as PyAV brings it, was built without this protocol", True
    if kind == "ValueError":  # a codec that the format does not take
        return text, True
    if kind in ("HTTPUnauthorizedError", "HTTPForbiddenError"):
        return "the server refuses access; check user name and password", False
    if kind == "HTTPNotFoundError":
        return "the server does not know this path (404)", False
    if number == errno.ECONNREFUSED:
        return "the connection was refused; is the server running on that port?", False
    if number in (errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED) or kind == "EOFError":
        return "the server closed the connection", False
    if number == errno.EIO and "://" in url and unknown_host(url):
        return "its host cannot be found; check its spelling and the network", False
    if kind == "InvalidDataError":
        return "the server answers something else than this protocol", False
    return (os.strerror(number) if isinstance(number, int) and 0 < number < 200 else text), False


def _read(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = json.loads(line) if line.endswith(b"\n") else {}
    return found if isinstance(found, dict) else {}
