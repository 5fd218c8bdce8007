"""Annotated frames as image files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from perception.card import ModelCard
from perception.errors import SinkError, UsageError
from perception.sinks.base import Sink
from perception.sinks.folder import PictureFolder
from perception.types import Prediction, SourceInfo


class ImageSink(Sink):
    """Writes the annotated picture of each frame into a folder, as JPEG or PNG.

    Files are named by frame index, or by the image's stem if the source is images.

    Args:
        path: the folder; it is made.
        overwrite: replace pictures that are there.
        format: ``jpg`` or ``png``.
        quality: of JPEG, 1 to 100.

    Raises:
        UsageError: the folder has such pictures and ``overwrite`` is False, or an option is out of range.
        SinkError: the place is not writable.
    """

    wants_picture: ClassVar[bool] = True

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        format: Literal["jpg", "jpeg", "png"] = "jpg",
        quality: int = 90,
    ) -> None:
        if format not in ("jpg", "jpeg", "png"):
            raise UsageError(f"pictures are written as jpg or png, not as {format}", path)
        if not 1 <= quality <= 100:
            raise UsageError(f"the quality of JPEG is between 1 and 100, not {quality}", path)
        suffix = ".png" if format == "png" else ".jpg"
        self._folder = PictureFolder(path, suffix, overwrite)
        self._quality = quality
        self.where = str(path)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        self._folder.open(info)

    def write(self, prediction: Prediction) -> None:
        import cv2

        from perception.picture.conversions import to_bgr

        bgr = to_bgr(prediction.picture if prediction.picture is not None else prediction.frame.picture)
        if self._folder.suffix == ".png":
            # Level 1 takes a third of the default's time for a few per cent more bytes.
            done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        else:
            done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        if not done:
            raise SinkError(f"a picture of {bgr.shape[1]}x{bgr.shape[0]} cannot be encoded", self.where)
        self._folder.put(prediction.frame, data.tobytes())

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass
