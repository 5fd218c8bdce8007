"""Annotated frames as image files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from perception.card import ModelCard
from perception.errors import UsageError
from perception.sinks.base import Sink
from perception.sinks.folder import PictureFolder
from perception.sinks.picture import QUALITY, check_quality, encode_picture
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
        quality: int = QUALITY,
    ) -> None:
        if format not in ("jpg", "jpeg", "png"):
            raise UsageError(f"pictures are written as jpg or png, not as {format}", path)
        check_quality(quality, path)
        suffix = ".png" if format == "png" else ".jpg"
        self._folder = PictureFolder(path, suffix, overwrite)
        self._quality = quality
        self.where = str(path)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        self._folder.open(info)

    def write(self, prediction: Prediction) -> None:
        picture = prediction.picture if prediction.picture is not None else prediction.frame.picture
        self._folder.put(prediction.frame, encode_picture(picture, self._folder.suffix, self._quality, self.where))

    def close(self) -> None:
        pass
