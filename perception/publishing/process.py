"""One connection to a target, in a process of its own.

``python -m perception.publishing.process`` reads what to open and packets from its standard input, see `ask` and
`framed`, and writes lines of JSON to its standard output: ``{"open": true}`` once there is a connection, and
``{"error": "ConnectionRefusedError", "errno": 111, "text": "..."}`` where it cannot be had or is lost.

FFmpeg connects, and says goodbye, under Python's lock and without a time limit: in the process of the service, a host
that does not answer would hold up everything. From outside, a process can be ended at any moment. This one imports
nothing of the package, so that it is there soon and is small.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import sys
from collections.abc import Mapping
from fractions import Fraction
from typing import IO, Any, NamedTuple

import av

TIMESCALE = 90_000
"""Units of the time stamps in a second."""

CONNECT_S = 15.0
"""Seconds in which a target must have accepted a connection."""

STUCK_S = 10.0
"""A connection that has taken nothing for so many seconds is given up."""

_HEAD = struct.Struct(">qII?")


class EncodedPacket(NamedTuple):
    """One encoded frame. It is decoded and shown at the same time, since no frame refers to a later one.

    Attributes:
        data: the bytes, with start codes (Annex B of ITU-T H.264 and H.265).
        pts: when it is shown, in units of 1 / `TIMESCALE` s.
        duration: about how long it is shown, in the same units.
        key: whether decoding can begin with it.
    """

    data: bytes
    pts: int
    duration: int
    key: bool


def ask(url: str, muxer: str, options: Mapping[str, str], head: bytes) -> bytes:
    """Say what to open. It goes through a pipe, since everybody can read the arguments of a process.

    Args:
        url: where to.
        muxer: FFmpeg's name of the format.
        options: of the format.
        head: what the packets are of: a file of FFmpeg's format NUT with one video stream.
    """
    asked = {"url": url, "muxer": muxer, "options": dict(options), "head": len(head)}
    return json.dumps(asked).encode() + b"\n" + head


def framed(packet: EncodedPacket, origin: int) -> bytes:
    """Return a packet as the process reads it; ``origin`` is the time stamp that becomes 0."""
    return _HEAD.pack(packet.pts - origin, packet.duration, len(packet.data), packet.key) + packet.data


def main() -> None:
    """Make one connection; the entry point of the process."""
    for ending in (signal.SIGINT, signal.SIGTERM):  # which go to all at once; what is left is still to be sent
        signal.signal(ending, signal.SIG_IGN)
    given, answers = sys.stdin.buffer, sys.stdout
    sys.stdout = sys.stderr  # libraries may print
    try:
        _send(json.loads(given.readline()), given, answers)
    except Exception as error:
        kind, text = type(error).__name__, getattr(error, "strerror", None) or str(error)
        _say(answers, {"error": kind, "errno": getattr(error, "errno", None), "text": text})
        os._exit(1)  # and no goodbye, for which nothing sets a limit


def _live_for(seconds: float) -> None:
    """End in twice so many seconds, unless called again; 0: not at all. For what outlives who would end it in time."""
    if hasattr(signal, "alarm"):
        signal.alarm(0 if not seconds else int(2 * seconds))


def _say(answers: IO[str], what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def _send(asked: dict[str, Any], given: IO[bytes], answers: IO[str]) -> None:
    _live_for(CONNECT_S)
    with av.open(io.BytesIO(given.read(asked["head"])), format="nut") as described:
        output = av.open(asked["url"], "w", format=asked["muxer"], container_options=asked["options"])
        stream: Any = output.add_stream_from_template(described.streams.video[0])
        stream.time_base = Fraction(1, TIMESCALE)
        output.start_encoding()
    _say(answers, {"open": True})
    while True:
        _live_for(0)
        head = given.read(_HEAD.size)
        _live_for(STUCK_S)
        if len(head) < _HEAD.size:
            break
        pts, duration, size, key = _HEAD.unpack(head)
        data = given.read(size)
        if len(data) < size:
            break
        packet = av.Packet(data)
        packet.stream = stream
        packet.time_base = Fraction(1, TIMESCALE)
        packet.pts = packet.dts = pts
        packet.duration = duration
        packet.is_keyframe = key
        output.mux_one(packet)
    output.close()


if __name__ == "__main__":
    main()
