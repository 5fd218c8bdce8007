"""The metadata of an ONNX file, read without its graph, which takes a library that takes longer to load than to use.

An ONNX file is one message of Protocol Buffers: a row of fields, each with its number and kind in front of it, so that
those that are not wanted can be passed over (https://protobuf.dev/programming-guides/encoding, and `onnx.proto`).
"""

from __future__ import annotations

from collections.abc import Iterator

_GRAPH, _METADATA = 7, 14
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def metadata_of(data: bytes) -> dict[str, str] | None:
    """Return the ``metadata_props`` of an ONNX file, the first value of each key.

    Args:
        data: what the file contains.

    Returns:
        None where that is no ONNX file, or not all of one; its graph is not looked into.
    """
    found: dict[str, str] = {}
    graph = False
    try:
        for number, value in _fields(data, 0, len(data)):
            if number == _GRAPH:
                graph = True
            elif number == _METADATA and isinstance(value, tuple):
                entry = {n: data[slice(*v)].decode() for n, v in _fields(data, *value) if isinstance(v, tuple)}
                found.setdefault(entry.get(_KEY, ""), entry.get(_VALUE, ""))
    except (ValueError, IndexError):
        return None
    return found if graph else None


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Yield each field between two places: its number, and where its bytes begin and end, or a number.

    Raises:
        ValueError, IndexError: that is no row of fields.
    """
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        value: int | tuple[int, int] = 0
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            size, begin = _varint(data, at)
            at = begin + size
            value = begin, at
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"no field is of kind {kind}")
        if at > end or not tag >> 3:
            raise ValueError("a field is cut short, or has no number")
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, the lowest first; and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
