"""Packets of sound and video of one file, on one clock that only runs ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from perception.common.timestamps import JUMP_S, LOOK_AHEAD, Timeline

HELD_PACKETS = 4096
"""Packets of sound that wait for the video of their stretch; then it does not come."""

_MICROSECOND = Fraction(1, 1_000_000)
_WINDOW = 64  # packets that are looked ahead at: several of each kind, however they are interleaved
_SOUND_STEP = 20_000  # microseconds: about what a packet of sound lasts


def on_one_clock(packets: Iterator[Any], step: Fraction, joins: bool) -> Iterator[Any]:
    """Yield packets that have time stamps, moved as `perception.common.timestamps.Timeline` moves the frames.

    The video decides, as its decoder does: its new stretch begins where the last one ended, and the sound of that
    stretch is moved by as much. Sound that comes before the video of its stretch waits for it. A single wrong stamp is
    placed behind the packet before it.

    Args:
        packets: as they lie in the file; their time stamps are changed.
        step: seconds for which a frame is shown.
        joins: whether the container's clock may jump.
    """
    timelines = {
        "video": Timeline(_MICROSECOND, max(1, round(step / _MICROSECOND)), joins),
        "audio": Timeline(_MICROSECOND, _SOUND_STEP, joins),
    }
    shifts = {0: Fraction(0)}  # seconds by which the packets of each stretch are moved
    stretch = {"video": 0, "audio": 0}
    end: dict[str, Fraction] = {}  # as moved
    waiting: list[Any] = []

    def moved(packet: Any, shift: Fraction | None = None) -> Any:
        kind, base = packet.stream.type, packet.time_base
        units = round((shifts[stretch[kind]] if shift is None else shift) / base)
        packet.pts += units
        packet.dts = packet.pts if packet.dts is None else packet.dts + units
        length = step if kind == "video" else (packet.duration or 0) * base
        end[kind] = max(end.get(kind, packet.pts * base), packet.pts * base + length)
        return packet

    for packet, following in _looked_ahead(packets):
        kind, time = packet.stream.type, packet.pts * packet.time_base
        timeline = timelines[kind]
        before, stamp = timeline.stretch, _stamp(packet)
        placed_before = timeline.shift
        timeline.place(stamp, following)
        if timeline.outlier:
            if kind in end:  # else nothing is known yet of where it belongs
                yield moved(packet, end[kind] - time)
            continue
        if timeline.stretch != before:
            video = end.get("video", Fraction(0))
            if kind == "video":
                stretch[kind] += 1
                shifts[stretch[kind]] = video - time
            else:
                fits = abs(time + shifts[stretch["video"]] - video) <= JUMP_S
                is_hole = stretch["video"] == stretch["audio"] and timeline.shift < placed_before
                if fits and (is_hole or stretch["video"] > stretch["audio"]):
                    stretch[kind] = stretch["video"]
                else:
                    stretch[kind] = stretch["video"] + 1
        if kind == "audio" and stretch[kind] not in shifts:
            waiting.append(packet)
            if len(waiting) < HELD_PACKETS:
                continue
            first = waiting[0]
            shifts[stretch[kind]] = (
                end.get(kind, Fraction(0)) - first.pts * first.time_base
            )  # the video does not follow
            packet = None
        if stretch["audio"] in shifts:
            for held in waiting:
                yield moved(held)
            waiting.clear()
        if packet is not None:
            yield moved(packet)
    if waiting:
        first = waiting[0]
        shifts[stretch["audio"]] = end.get("audio", Fraction(0)) - first.pts * first.time_base
        for held in waiting:
            yield moved(held)


def _stamp(packet: Any) -> int:
    """Return the decoding time of a packet in microseconds, the only one that increases in the order stored."""
    stamp = packet.pts if packet.dts is None else packet.dts
    return round(stamp * packet.time_base / _MICROSECOND)


def _looked_ahead(packets: Iterator[Any]) -> Iterator[tuple[Any, list[int]]]:
    """Yield packets with a stamp and data, with the next stamps of the same kind."""
    window: deque[Any] = deque()
    usable = (packet for packet in packets if packet.pts is not None and packet.size)
    ended = False
    while True:
        while not ended and len(window) < _WINDOW:
            packet = next(usable, None)
            ended = packet is None
            if packet is not None:
                window.append(packet)
        if not window:
            return
        packet = window.popleft()
        same = (after for after in window if after.stream.type == packet.stream.type)
        yield packet, [_stamp(after) for after, _ in zip(same, range(LOOK_AHEAD), strict=False)]
