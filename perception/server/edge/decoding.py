"""Decoding of clients' pictures that logs nothing: messages about damaged files would fill the server's log.

OpenCV lets libjpeg and libpng write to standard error, once for each damaged picture, and adds lines of its own.
simplejpeg and Pillow are silent.

Pillow holds the interpreter while it allocates and copies, which takes a tenth of a second and more for tens of
megapixels, and all requests wait meanwhile. So large pictures that are no JPEGs are decoded in a process of their own:

    python -m perception.server.edge.decoding < picture.png > pixels
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from perception.common.programs import program
from perception.errors import SourceError
from perception.server.problems import Busy
from perception.types import U8

LARGE = 4_000_000
"""Pixels; pictures of more take long."""

TIMEOUT_S = 60.0
"""Seconds that a process may take for one picture."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_JPEG = b"\xff\xd8"
_SHAPE = struct.Struct("<II")

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


def decode(data: bytes, width: int, height: int) -> U8:
    """Decode a picture whose size was checked before.

    Args:
        data: the file.
        width, height: as its header says.

    Returns:
        uint8 ``[H, W, 3]`` BGR, upright (EXIF orientation applied). What is missing at the end of a JPEG is grey.

    Raises:
        SourceError: it is damaged.
        Busy: it took too long.
    """
    try:
        if width * height <= LARGE or data.startswith(_JPEG):
            return _decode(data)
        return _decode_apart(data, width * height)
    except Busy:
        raise
    except Exception:  # Pillow raises whatever a damaged file leads to
        raise SourceError("the image is damaged") from None


def _decode(data: bytes) -> U8:
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
    mirrored, turn = _TURNS.get(orientation, (False, None))
    if mirrored:
        image = cv2.flip(image, 1)
    return np.ascontiguousarray(image if turn is None else cv2.rotate(image, turn), np.uint8)


def _decode_apart(data: bytes, pixels: int) -> U8:
    """Decode in a process of its own.

    Raises:
        Busy: it takes too long, or the system is short of memory and has ended it.
        Exception: it is damaged.
    """
    with subprocess.Popen(
        program(__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        clock = threading.Timer(TIMEOUT_S, process.kill)
        clock.start()
        try:
            return _exchange(process, data, pixels)
        except EOFError:
            if process.wait() == -9:  # SIGKILL
                raise Busy("decoding the image took too long; try again shortly, or send a smaller one", 5.0) from None
            raise
        finally:
            clock.cancel()
            process.kill()


def _exchange(process: subprocess.Popen[bytes], data: bytes, pixels: int) -> U8:
    """Give a picture to a process and take its pixels.

    Raises:
        EOFError: the process ended early.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as stdin:
            stdin.write(data)
    except OSError:
        raise EOFError from None
    head = process.stdout.read(_SHAPE.size)
    if len(head) < _SHAPE.size:
        raise EOFError
    height, width = _SHAPE.unpack(head)
    if height * width != pixels:
        raise ValueError("its size is not the one that was looked at")
    image = np.empty((height, width, 3), np.uint8)
    if process.stdout.readinto(image.reshape(-1)) != image.size:  # type: ignore[attr-defined]
        raise EOFError
    return image


def _pixels(picture: Image.Image) -> U8:
    if picture.mode.startswith("I"):  # grey of 16 bits, which Pillow would cut off at 255
        image = cv2.cvtColor((np.asarray(picture) >> 8).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    else:
        rgb = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))  # convert() would copy
        picture.close()
        image = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return np.asarray(image, np.uint8)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)  # small pictures and streams come first
    decoded = _decode(sys.stdin.buffer.read())
    sys.stdout.buffer.write(_SHAPE.pack(*decoded.shape[:2]))
    sys.stdout.buffer.write(decoded.data)
