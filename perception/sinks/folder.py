"""A folder of pictures, one a frame, each whole or not there."""

from __future__ import annotations

import glob
from pathlib import Path

from perception.common.files import write_atomic
from perception.errors import UsageError
from perception.sinks.files import check_folder, make_folder, sink_errors
from perception.types import Frame, SourceInfo


class PictureFolder:
    """Names the pictures and puts each into the folder at once.

    A picture has its frame's index as its name (``000000.png``), or the stem of the image it was made from if the
    source is images; a second image of the same stem gets its index added.

    Args:
        path: the folder; it is made, with its parents.
        suffix: of the files, such as ``.png``.
        overwrite: a folder that has such files already may be written into; others in it stay.

    Raises:
        UsageError: ``path`` is a file, or has such files and ``overwrite`` is False.
        SinkError: its parent is not writable.
    """

    def __init__(self, path: str | Path, suffix: str, overwrite: bool) -> None:
        self.path = Path(path)
        self.suffix = suffix
        self._by_stem = False
        self._used: set[str] = set()
        with sink_errors(str(path)):
            is_there, is_folder = self.path.exists(), self.path.is_dir()
        if is_there and not is_folder:
            raise UsageError("this is a file, not a folder; give another name", path)
        if is_folder and not overwrite and any(self.path.glob(f"*{suffix}")):
            raise UsageError(
                f"the folder already has {suffix} files; give another name, or `overwrite=True` to replace them", path
            )
        check_folder(self.path, self.path)

    def open(self, info: SourceInfo) -> None:
        """Make the folder.

        Raises:
            UsageError: the source's images lie in it, so that they would be written over.
            SinkError: it cannot be made.
        """
        self._by_stem = info.kind == "images"
        self._used.clear()
        make_folder(self.path, str(self.path))
        if self._by_stem and any(folder.samefile(self.path) for folder in _folders_of(info.uri)):
            raise UsageError("the source's images are in this folder; give another one", self.path)

    def name(self, frame: Frame) -> str:
        """Return the name of the frame's picture, a new one for each frame."""
        if not self._by_stem:
            return f"{frame.index:06d}{self.suffix}"
        stem = own = Path(frame.source).stem
        number = frame.index
        while stem in self._used:
            stem, number = f"{own}-{number:06d}", number + 1
        self._used.add(stem)
        return stem + self.suffix

    def put(self, frame: Frame, data: bytes) -> Path:
        """Write an encoded picture; under its name it is complete from the first moment.

        Raises:
            SinkError: the disk is full, and the like.
        """
        path = self.path / self.name(frame)
        with sink_errors(str(path)):
            write_atomic(path, data)
        return path


def _folders_of(images: str) -> set[Path]:
    """Return the folders of the images that a file, a folder or a glob names."""
    path = Path(images)
    if path.exists():
        return {path if path.is_dir() else path.parent}
    return {Path(found).parent for found in glob.glob(images, recursive=True)}  # noqa: PTH207 (takes absolute patterns)
