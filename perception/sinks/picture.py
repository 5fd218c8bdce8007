"""One picture as a file."""

from __future__ import annotations

from pathlib import Path

import cv2

from perception.errors import SinkError
from perception.sinks.files import PartFile, sink_errors
from perception.types import U8


def write_picture(path: Path, picture: U8, *, overwrite: bool = False) -> None:
    """Write a picture, uint8 ``[H, W, 3]`` BGR; the ending of the path gives the format.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: the file cannot be written, or not in that format.
    """
    file = PartFile(path, overwrite)
    try:
        _, data = cv2.imencode(path.suffix, picture)
    except cv2.error:
        raise SinkError(f"OpenCV cannot write {path.suffix or 'such'} files", path) from None
    with file.open() as stream, sink_errors(str(path)):
        stream.write(data.tobytes())
    file.publish()
