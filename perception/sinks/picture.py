"""One picture as a file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from perception.card import ModelCard
from perception.errors import SinkError, UsageError
from perception.sinks.base import Sink
from perception.sinks.files import PartFile, check_not_source, sink_errors
from perception.types import Picture, Prediction, SourceInfo

QUALITY = 90
"""Of JPEG and WebP, unless it is chosen."""


class PictureSink(Sink):
    """Writes the annotated picture of a source that has one frame, such as a photo; the name gives the format.

    Args:
        path: the file.
        overwrite: replace a file that is there.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        UsageError: the file is there and ``overwrite`` is False, or the quality is out of range.
        SinkError: its folder is not writable.
    """

    wants_picture: ClassVar[bool] = True

    def __init__(self, path: str | Path, *, overwrite: bool = False, quality: int = QUALITY) -> None:
        check_quality(quality, path)
        self._file = PartFile(path, overwrite)
        self._quality = quality
        self._data = b""
        self.where = str(path)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        check_not_source(self._file.path, info.path)
        if info.exact_count and (info.frame_count or 1) > 1:
            self._refuse()

    def write(self, prediction: Prediction) -> None:
        if self._data:
            self._refuse()
        picture = prediction.picture if prediction.picture is not None else prediction.frame.picture
        self._data = encode_picture(picture, self._file.path.suffix, self._quality, self.where)

    def _refuse(self) -> None:
        raise UsageError(
            "a picture has one frame, and the source has more; give a folder, or a video's name", self.where
        )

    def close(self) -> None:
        data, self._data = self._data, b""
        if data:
            with self._file.open() as stream, sink_errors(self.where):
                stream.write(data)
            self._file.publish()


def check_quality(quality: int, where: str | Path) -> None:
    """Check a quality of JPEG.

    Raises:
        UsageError: it is out of range.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"the quality of JPEG is between 1 and 100, not {quality}", where)


def encode_picture(picture: Picture, suffix: str, quality: int, where: str | Path) -> bytes:
    """Encode a picture in the format of a suffix such as ``.png``.

    Raises:
        SinkError: OpenCV cannot encode it, or not in that format.
    """
    import cv2

    from perception.picture.conversions import to_bgr

    bgr = to_bgr(picture)
    suffix = suffix.lower()
    options = {
        # Level 1 takes a third of the default's time for a few per cent more bytes.
        ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
    }
    try:
        done, data = cv2.imencode(suffix, bgr, options.get(suffix, []))
    except cv2.error:
        raise SinkError(f"OpenCV cannot write {suffix or 'such'} files", where) from None
    if not done:
        raise SinkError(f"a picture of {bgr.shape[1]}x{bgr.shape[0]} cannot be encoded", where)
    return data.tobytes()


def write_picture(path: Path, picture: Picture, *, overwrite: bool = False) -> None:
    """Write a picture; the ending of the path gives the format.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: the file cannot be written, or not in that format.
    """
    file = PartFile(path, overwrite)
    data = encode_picture(picture, path.suffix, QUALITY, path)
    with file.open() as stream, sink_errors(str(path)):
        stream.write(data)
    file.publish()
