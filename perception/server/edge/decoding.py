"""Decoding of clients' pictures that logs nothing: messages about damaged files would fill the server's log.

OpenCV lets libjpeg and libpng write to standard error, once for each damaged picture, and adds lines of its own.
simplejpeg and Pillow are silent.
"""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from perception.errors import SourceError
from perception.types import U8

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_ORIENTATION = 0x0112  # of EXIF
_TURNS: dict[int, tuple[bool, int | None]] = {
    # whether it is mirrored, and how it is turned after that
    2: (True, None),
    3: (False, cv2.ROTATE_180),
    4: (True, cv2.ROTATE_180),
    5: (True, cv2.ROTATE_90_COUNTERCLOCKWISE),
    6: (False, cv2.ROTATE_90_CLOCKWISE),
    7: (True, cv2.ROTATE_90_CLOCKWISE),
    8: (False, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def decode(data: bytes) -> U8:
    """Decode a picture whose size was checked before.

    Returns:
        uint8 ``[H, W, 3]`` BGR, upright (EXIF orientation applied). What is missing at the end of a JPEG is grey.

    Raises:
        SourceError: it is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                orientation = picture.getexif().get(_ORIENTATION, 1)
                if picture.format == "JPEG" and picture.mode in ("RGB", "L"):
                    if simplejpeg.decode_jpeg_header(data)[1::-1] != picture.size:
                        raise ValueError("its size is not the one that was looked at")
                    image = simplejpeg.decode_jpeg(data, "BGR", strict=False)
                else:
                    image = _pixels(picture)
    except Exception:  # Pillow raises whatever a damaged file leads to
        raise SourceError("the image is damaged") from None
    mirrored, turn = _TURNS.get(orientation, (False, None))
    if mirrored:
        image = cv2.flip(image, 1)
    return np.ascontiguousarray(image if turn is None else cv2.rotate(image, turn), np.uint8)


def _pixels(picture: Image.Image) -> U8:
    if picture.mode.startswith("I"):  # grey of 16 bits, which Pillow would cut off at 255
        image = cv2.cvtColor((np.asarray(picture) >> 8).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    else:
        image = cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR)
    return np.asarray(image, np.uint8)
