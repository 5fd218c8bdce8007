"""Class masks as palette PNGs: the value of a pixel is its class id, the palette shows it in the class's colour."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from perception.card import ModelCard
from perception.errors import UsageError
from perception.sinks.base import Sink
from perception.sinks.folder import PictureFolder
from perception.types import U8, Prediction, SourceInfo


class MaskSink(Sink):
    """Writes the class mask of each frame into a folder, as 8-bit palette PNG.

    Files are named by frame index, or by the image's stem if the source is images. Unknown pixels have the id that the
    card says (`perception.common.calibration.UnknownScale`), after those of the classes, and are black.

    Args:
        path: the folder; it is made.
        overwrite: replace PNGs that are there.

    Raises:
        UsageError: the folder has PNGs and ``overwrite`` is False.
        SinkError: the place is not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self._folder = PictureFolder(path, ".png", overwrite)
        self.where = str(path)
        self._palette = np.zeros((256, 3), np.uint8)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        if card is not None and card.segmentation is None:
            raise UsageError(
                f"the model {card.name} does not do segmentation, so there are no masks to write", self.where
            )
        if card is not None and card.segmentation is not None:
            colors = [c.color for c in card.segmentation.classes]
            self._palette = np.array(colors if card.segmentation.unknown is None else [*colors, (0, 0, 0)], np.uint8)
        else:
            self._palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
        self._folder.open(info)

    def write(self, prediction: Prediction) -> None:
        if prediction.class_map is None:
            raise UsageError("the prediction has no class map, so there is no mask to write", self.where)
        self._folder.put(prediction.frame, encode_palette_png(prediction.class_map.mask, self._palette))

    def close(self) -> None:
        pass


def encode_palette_png(mask: U8, palette: U8) -> bytes:
    """Encode an 8-bit palette PNG (PNG specification, third edition, colour type 3).

    Args:
        mask: uint8 ``[H, W]`` of palette indices.
        palette: uint8 ``[P, 3]`` RGB, P at most 256; indices beyond it are given in grey.

    Returns:
        The bytes of the file.
    """
    height, width = mask.shape
    size = max(len(palette), int(mask.max(initial=0)) + 1)
    colors = np.repeat(np.arange(size, dtype=np.uint8)[:, None], 3, 1)
    colors[: len(palette)] = palette
    # Filter "up": a row of a mask mostly equals the row above, and zeros compress fastest and best.
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = 2
    rows[:1, 1:] = mask[:1]
    np.subtract(mask[1:], mask[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", colors.tobytes()),
            _chunk(b"IDAT", zlib.compress(rows.data, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
