"""A COCO document that is written as it grows: images straight into it, annotations by way of a temporary file."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from perception.card import ModelCard
from perception.errors import SinkError
from perception.sinks.files import PartFile, check_not_source, sink_errors, utf8
from perception.types import Frame, SourceInfo


def category_of(class_id: int) -> int:
    """The category of a class: from 1, because readers (Datumaro, and so CVAT) take the category 0 for none."""
    return class_id + 1


class CocoDocument:
    """Memory does not grow with the number of frames. The file is ``NAME.part`` until it is closed.

    Args:
        path: the file.
        overwrite: replace a file that is there.

    Attributes:
        where: the file, for messages.
        tail: what is written after the annotations; may be set until the document is closed.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: its folder is not there or not writable.
    """

    def __init__(self, path: str | Path, overwrite: bool) -> None:
        self._file = PartFile(path, overwrite)
        self.where = str(path)
        self.tail: dict[str, Any] = {}
        self._images: IO[bytes] | None = None
        self._annotations: IO[bytes] | None = None
        self._image_count = 0
        self._annotation_count = 0

    def open(self, info: SourceInfo, card: ModelCard | None, head: dict[str, Any]) -> None:
        """Begin with what it is about, and ``head``.

        Raises:
            UsageError: it is the file that is being read.
            SinkError: it cannot be created.
        """
        check_not_source(self._file.path, info.path)
        about = {"description": info.uri, "model": f"{card.name} {card.version}" if card else ""}
        self._images = self._file.open()
        with sink_errors(self.where):
            self._annotations = tempfile.TemporaryFile(dir=self._file.path.parent)  # noqa: SIM115
            self._images.write(_dump({"info": about, "licenses": [], **head})[:-1] + b',\n"images":[')

    def add_image(self, frame: Frame, name: str | None = None) -> None:
        """A frame as an image; its index is its id, its ``file_name`` that of its source unless there is a better."""
        assert self._images is not None, "write before open"
        image = {
            "id": frame.index,
            "file_name": frame.source if name is None else name,
            "width": frame.width,
            "height": frame.height,
            "time": round(frame.time, 6),
        }
        with sink_errors(self.where):
            self._images.write((b",\n" if self._image_count else b"\n") + _dump(image))
        self._image_count += 1

    def add_annotation(self, annotation: dict[str, Any]) -> None:
        """One row of the annotations."""
        assert self._annotations is not None, "write before open"
        with sink_errors(self.where):
            self._annotations.write((b",\n" if self._annotation_count else b"\n") + _dump(annotation))
        self._annotation_count += 1

    def close(self) -> None:
        """Finish it and give it its name."""
        if self._images is not None:
            self._finish()
            self._file.publish()

    def abort(self) -> None:
        """Make what is there valid, and leave it under the other name. Raises nothing."""
        if self._images is not None:
            with suppress(SinkError):
                self._finish()
            self._file.leave()

    def _finish(self) -> None:
        images, annotations = self._images, self._annotations
        assert images is not None and annotations is not None
        self._images = self._annotations = None
        with sink_errors(self.where), annotations, images:
            images.write(b'\n],\n"annotations":[')
            annotations.seek(0)
            shutil.copyfileobj(annotations, images)
            images.write(b"\n]" + (b",\n" + _dump(self.tail)[1:] if self.tail else b"}") + b"\n")


def _dump(value: Any) -> bytes:
    return utf8(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
