"""Where the parts of a file begin and end, by its format: boxes, chunks, packets, pages."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from tests.fuzz.mutate import Span

_BOXES_IN_BOX = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"dinf",
                           b"udta", b"iprp", b"ipco"))  # fmt: skip
_MASTERS = frozenset((0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB, 0xB7,
                      0x114D9B74, 0x4DBB, 0x1A45DFA3))  # fmt: skip


def boxes(data: bytes, start: int = 0, end: int | None = None) -> list[Span]:
    """ISO base media: MP4, MOV, HEIF, AVIF."""
    end = len(data) if end is None else end
    found: list[Span] = []
    while start + 8 <= end:
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        stop = start + size if size >= 8 else end
        found.append((start, min(stop, end)))
        if kind in _BOXES_IN_BOX:
            found += boxes(data, start + 8, min(stop, end))
        elif kind == b"meta":
            found += boxes(data, start + 12, min(stop, end))
        elif kind == b"stsd":
            found += boxes(data, start + 16, min(stop, end))
        start = stop
    return found


def riff(data: bytes, start: int = 0, end: int | None = None) -> list[Span]:
    """AVI, WebP."""
    end = len(data) if end is None else end
    found: list[Span] = []
    while start + 8 <= end:
        stop = min(start + 8 + int.from_bytes(data[start + 4 : start + 8], "little"), end)
        found.append((start, stop))
        if data[start : start + 4] in (b"RIFF", b"LIST"):
            found += riff(data, start + 12, stop)
        start = stop + stop % 2
    return found


def ebml(data: bytes, start: int = 0, end: int | None = None) -> list[Span]:
    """Matroska, WebM."""
    end = len(data) if end is None else end
    found: list[Span] = []
    while start + 2 <= end:
        wide = 9 - data[start].bit_length()
        kind, at = int.from_bytes(data[start : start + wide], "big"), start + wide
        if wide > 4 or at >= end:
            break
        wide = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + wide], "big") & ((1 << 7 * wide) - 1)
        body = at + wide
        stop = min(body + size, end)
        found.append((start, stop))
        if kind in _MASTERS:
            found += ebml(data, body, stop)
        start = max(stop, body)
    return found


def packets(data: bytes) -> list[Span]:
    """MPEG-TS."""
    return [(at, at + 188) for at in range(0, len(data) - 187, 188)]


def tags(data: bytes) -> list[Span]:
    """FLV."""
    found, at = [(0, 13)], 13
    while at + 15 <= len(data):
        stop = at + 15 + int.from_bytes(data[at + 1 : at + 4], "big")
        found.append((at, min(stop, len(data))))
        at = stop
    return found


def objects(data: bytes) -> list[Span]:
    """ASF: a GUID and a size each; the first one is the header, which holds others."""
    found, at = [(0, 30)], 30
    while at + 24 <= len(data) and (size := int.from_bytes(data[at + 16 : at + 24], "little")) >= 24:
        found.append((at, min(at + size, len(data))))
        at += size
    return found


def chunks(data: bytes) -> list[Span]:
    """PNG."""
    found, at = [], 8
    while at + 12 <= len(data):
        stop = at + 12 + int.from_bytes(data[at : at + 4], "big")
        found.append((at, min(stop, len(data))))
        at = stop
    return found


def between(pattern: bytes) -> Callable[[bytes], list[Span]]:
    """Parts that begin with a pattern: start codes, markers, pages."""
    mark = re.compile(pattern, re.DOTALL)

    def find(data: bytes) -> list[Span]:
        starts = [match.start() for match in mark.finditer(data)]
        return list(zip(starts, [*starts, len(data)][1:], strict=True))

    return find


units = between(rb"\x00\x00\x01")
"""MPEG-PS, H.264, HEVC: start codes."""

segments = between(rb"\xff[^\x00\xff\xd0-\xd7]")
"""JPEG, Motion JPEG: markers."""

pages = between(b"OggS")
frames = between(b"FRAME")
blocks = between(rb"[\x21\x2c].")
"""GIF, roughly."""

directory = between(rb"\x01[\x00-\x0f][\x01-\x0d]\x00|[\x00-\x0f]\x01\x00[\x01-\x0d]")
"""TIFF: entries of its directory, roughly."""


def nothing(data: bytes) -> list[Span]:
    """A format of one piece: its head."""
    return [(0, min(64, len(data)))]


def with_sums(data: bytes) -> bytes:
    """A PNG whose check sums are right again: what lies behind them is to be reached."""
    fixed = bytearray(data)
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = zlib.crc32(fixed[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)
