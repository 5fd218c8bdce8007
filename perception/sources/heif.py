"""Pictures of phones: HEIC, HEIF and AVIF, whole or in tiles (ISO/IEC 23008-12, ISO/IEC 14496-12).

FFmpeg decodes each tile; where the tiles belong, and how the whole is turned, is read here from the file's boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from perception.common.bounds import Bounds
from perception.sources.presentation import Presenter
from perception.types import U8, Frame

_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"miaf", b"avif")
_MOST_PIXELS = 1 << 28
_MOST_TILES = 1024  # of 512 x 512, as phones write them, they are 268 million pixels
_MOST_ITEMS = 4096  # FFmpeg makes a stream of each, wanted or not
_GRID_BYTES = 12  # the longest description of a grid


def is_heif(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` (12 bytes are enough) is a HEIF or AVIF picture."""
    return head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS


def read_heif(path: Path, bounds: Bounds | None = None) -> U8 | None:
    """Read a picture as uint8 ``[H, W, 3]`` BGR, upright; None if it cannot be read.

    Raises:
        SourceError: it is larger than ``bounds`` allow.
    """
    bounds = bounds or Bounds()
    where = str(path)
    try:
        primary, grid = _primary(path.read_bytes())
        if grid is not None:
            bounds.check_size(grid.width, grid.height, where)
        options = {"protocol_whitelist": "file", "format_whitelist": "mov"} | bounds.codec_options
        with av.open(f"file:{path.absolute()}", options=options) as file:
            if grid is None:
                (meant,) = [stream for stream in file.streams.video if stream.id == primary]
                return _decode(file, meant, where, bounds)
            if len(grid.tiles) > _MOST_TILES:
                return None
            wanted = {stream.id: stream for stream in file.streams.video if stream.id in grid.tiles}
            return grid.assemble(lambda tile: _decode(file, wanted[tile], where, bounds))
    except (av.error.FFmpegError, OSError, ValueError, LookupError, StopIteration):
        return None


def _decode(file: av.container.InputContainer, stream: av.VideoStream, where: str, bounds: Bounds) -> U8:
    codec = stream.codec_context
    if codec is None:
        raise LookupError("no decoder for it")
    bounds.check_size(codec.width, codec.height, where)
    codec.thread_count = 1  # each tile has a decoder of its own
    if bounds.codec_options:
        codec.options = bounds.codec_options
    file.seek(0)
    frame = next(file.decode(stream))
    planes, image = Presenter(where, bounds)(frame, Fraction(1))
    return Frame(image, planes=planes).image


@dataclass
class _Grid:
    """A picture in tiles of one size, in rows from the top left.

    Attributes:
        rows, columns: how many tiles.
        width, height: of the whole picture, in pixels; what the tiles have beyond is cut off.
        tiles: ids of their items.
        turns: ``irot`` with quarter turns counterclockwise, ``imir`` with 0 for top and bottom changing places and 1
            for left and right; one after the other.
    """

    rows: int
    columns: int
    width: int
    height: int
    tiles: list[int] = field(default_factory=list)
    turns: list[tuple[bytes, int]] = field(default_factory=list)

    def assemble(self, decode: Callable[[int], U8]) -> U8:
        """Assemble the whole picture, one tile at a time.

        Args:
            decode: gives a tile by the id of its item.

        Raises:
            LookupError: a tile is missing.
            ValueError: the tiles do not fill the picture, or reach beyond it.
        """
        if len(self.tiles) != self.rows * self.columns or self.width * self.height > _MOST_PIXELS:
            raise ValueError("not as many tiles as places")
        places: dict[int, list[int]] = {}
        for number, tile in enumerate(self.tiles):
            places.setdefault(tile, []).append(number)
        image = np.empty((0, 0, 3), np.uint8)
        height = width = 0
        for tile, numbers in places.items():
            decoded = decode(tile)
            if not image.size:
                height, width = decoded.shape[:2]
                # What lies wholly outside would be decoded for nothing, as often as the file likes.
                if not (self._fits(width, self.columns, self.width) and self._fits(height, self.rows, self.height)):
                    raise ValueError("the tiles do not fit the picture")
                image = np.empty((self.height, self.width, 3), np.uint8)
            for number in numbers:
                y, x = number // self.columns * height, number % self.columns * width
                place = image[y : y + height, x : x + width]
                place[:] = decoded[: place.shape[0], : place.shape[1]]
        for kind, how in self.turns:
            image = np.rot90(image, how & 3) if kind == b"irot" else np.flip(image, how & 1)
        return np.ascontiguousarray(image)

    @staticmethod
    def _fits(tile: int, count: int, whole: int) -> bool:
        return tile * (count - 1) < whole <= tile * count


def _primary(data: bytes) -> tuple[int, _Grid | None]:
    """Find the primary item of a file, and its tiles; None where it has none.

    Raises:
        ValueError, LookupError: the boxes are damaged.
    """
    start, end = dict(_boxes(data, 0, len(data), (b"meta",)))[b"meta"]
    meta = dict(_boxes(data, start + 4, end, (b"pitm", b"iinf", b"iref", b"iloc", b"idat", b"iprp")))
    at = meta[b"pitm"][0]
    wide = data[at] != 0
    primary = _number(data, at + 4, 4 if wide else 2)
    start = meta[b"iinf"][0]
    if _number(data, start + 4, 2 if data[start] == 0 else 4) > _MOST_ITEMS:
        raise ValueError("too many items")
    if _item_type(data, *meta[b"iinf"], primary) != b"grid":
        return primary, None
    payload = _item(data, meta, primary)
    size = 4 if payload[1] & 1 else 2
    grid = _Grid(payload[2] + 1, payload[3] + 1, _number(payload, 4, size), _number(payload, 4 + size, size))
    grid.tiles = _references(data, *meta[b"iref"], primary)
    grid.turns = _turns(data, *meta[b"iprp"], primary)
    return primary, grid


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("cut short")
    return int.from_bytes(data[at : at + size], "big")


def _boxes(data: bytes, at: int, end: int, kinds: tuple[bytes, ...] = ()) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield the boxes from ``at`` to ``end``: kind, begin and end of their contents."""
    while at + 8 <= end:
        size, kind, head = _number(data, at, 4), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = _number(data, at + 8, 8), 16
        elif size == 0:
            size = end - at
        if size < head or at + size > end:
            raise ValueError("a box that does not fit")
        if not kinds or kind in kinds:
            yield kind, (at + head, at + size)
        at += size


def _item_type(data: bytes, start: int, end: int, item: int) -> bytes:
    at = start + (6 if data[start] == 0 else 8)
    for _, (entry, _) in _boxes(data, at, end, (b"infe",)):
        size = 4 if data[entry] >= 3 else 2
        if data[entry] >= 2 and _number(data, entry + 4, size) == item:
            return data[entry + 4 + size + 2 : entry + 4 + size + 6]
    return b""


def _references(data: bytes, start: int, end: int, item: int) -> list[int]:
    """Return the items that ``item`` is derived from, in order."""
    size = 4 if data[start] else 2
    for _, (at, _) in _boxes(data, start + 4, end, (b"dimg",)):
        if _number(data, at, size) == item:
            count, at = _number(data, at + size, 2), at + size + 2
            return [_number(data, at + size * n, size) for n in range(count)]
    return []


def _item(data: bytes, meta: dict[bytes, tuple[int, int]], item: int) -> bytes:
    """Read the first bytes of an item, enough to describe a grid, from the file or from the box ``idat``."""
    at = meta[b"iloc"][0]
    version = data[at]
    sizes = _number(data, at + 4, 2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    wide = 4 if version >= 2 else 2
    count, at = _number(data, at + 6, wide), at + 6 + wide
    for _ in range(count):
        found, at = _number(data, at, wide), at + wide
        method = _number(data, at, 2) & 15 if version else 0
        at += 4 if version else 2
        base, at = _number(data, at, base_size), at + base_size
        extents, at = _number(data, at, 2), at + 2
        if extents > 1 and not index_size + offset_size + length_size:
            raise ValueError("extents that take no place")
        parts = b""
        for _ in range(extents):
            at += index_size
            offset, at = _number(data, at, offset_size), at + offset_size
            length, at = _number(data, at, length_size), at + length_size
            if found == item:
                begin = base + offset + (meta[b"idat"][0] if method == 1 else 0)
                parts += data[begin : begin + min(length or _GRID_BYTES, _GRID_BYTES)]
        if found == item:
            return parts[:_GRID_BYTES]
    raise LookupError("the item is nowhere")


def _turns(data: bytes, start: int, end: int, item: int) -> list[tuple[bytes, int]]:
    """Read how an item is rotated (``irot``) and mirrored (``imir``), in the order to apply."""
    boxes = list(_boxes(data, start, end))
    properties = [p for kind, (a, b) in boxes if kind == b"ipco" for p in _boxes(data, a, b)]
    for kind, (at, _) in boxes:
        if kind != b"ipma":
            continue
        version, wide_index = data[at], data[at + 3] & 1
        wide = 4 if version else 2
        count, at = _number(data, at + 4, 4), at + 8
        for _ in range(count):
            found, at = _number(data, at, wide), at + wide
            number, at = _number(data, at, 1), at + 1
            size = 2 if wide_index else 1
            indices = [_number(data, at + size * n, size) & (0x7FFF if wide_index else 0x7F) for n in range(number)]
            at += size * number
            if found == item:
                wanted = [properties[i - 1] for i in indices if 0 < i <= len(properties)]
                return [(kind, data[place]) for kind, (place, _) in wanted if kind in (b"irot", b"imir")]
    return []
