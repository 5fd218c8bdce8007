"""A folder of pictures, one a frame, each whole or not there."""

from __future__ import annotations

from pathlib import Path

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
        if self.path.exists() and not self.path.is_dir():
            raise UsageError("this is a file, not a folder; give another name", path)
        if self.path.is_dir() and not overwrite and any(self.path.glob(f"*{suffix}")):
            raise UsageError(
                f"the folder already has {suffix} files; give another name, or --overwrite to replace them", path
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
        if self._by_stem and info.path is not None:
            source = Path(info.path)
            read_from = source if source.is_dir() else source.parent
            if read_from.exists() and read_from.samefile(self.path):
                raise UsageError("the source's images are in this folder; give another one", self.path)

    def name(self, frame: Frame) -> str:
        """Name of the frame's picture, a new one for each frame."""
        if not self._by_stem:
            return f"{frame.index:06d}{self.suffix}"
        stem = Path(frame.source).stem
        if stem in self._used:
            stem = f"{stem}-{frame.index:06d}"
        self._used.add(stem)
        return stem + self.suffix

    def put(self, frame: Frame, data: bytes) -> Path:
        """Write an encoded picture; under its name it is complete from the first moment.

        Raises:
            SinkError: the disk is full, and the like.
        """
        path = self.path / self.name(frame)
        part = path.with_name(path.name + ".part")
        with sink_errors(str(path)):
            try:
                part.write_bytes(data)
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise
        return path
