"""Pictures with one class each: a folder or zip with a folder for each class, or arrays in an NPZ file."""

from __future__ import annotations

import lzma
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath

import numpy as np

from perception.errors import SourceError
from perception.evaluation.faults import Fault
from perception.evaluation.pictures import BadPicture, decode_picture, is_picture, read_picture
from perception.types import U8

_BAD_ZIP = (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
"""What damaged and encrypted zips lead to, and those with compressions that Python does not have."""


class LabelledPictures(ABC):
    """Pictures in a fixed order; `read` may be called from several threads at once.

    Attributes:
        path: where they are.
        names: class names, or None where labels are the model's own class ids.
        labels: for each picture its index into ``names``, or its class id.
    """

    path: Path
    names: list[str] | None
    labels: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> U8 | Fault:
        """Read a picture as uint8 ``[H, W, 3]`` BGR; return its fault if it has one."""
        try:
            return self._read(index)
        except BadPicture as error:
            return Fault(self.name(index), str(error))

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the name of a picture, for messages."""

    @abstractmethod
    def _read(self, index: int) -> U8:
        """`read`, or BadPicture."""


def open_labelled(path: str | Path) -> LabelledPictures:
    """Open the pictures in a folder, ``.zip`` or ``.npz``.

    Folder and zip: ``class/name.jpg``. NPZ: ``images`` uint8 ``[N, H, W]`` (gray) or ``[N, H, W, 3]`` (RGB) and
    ``labels``, whole numbers ``[N]``: the model's class ids.

    Raises:
        SourceError: it is missing, cannot be read, or has no pictures.
    """
    path = Path(path)
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise SourceError("no such file or folder", path)
    if path.suffix.lower() == ".npz":
        return _Arrays(path)
    if path.suffix.lower() == ".zip":
        return _Zip(path)
    raise SourceError("labelled pictures are a folder, a .zip or an .npz", path)


class _Folder(LabelledPictures):
    def __init__(self, path: Path) -> None:
        self.path = path
        files = sorted(p for p in path.glob("*/*") if is_picture(p.name) and p.is_file())
        if not files:
            raise SourceError("no images in folders named after their classes (class/name.jpg)", path)
        self._files = files
        self.names = sorted({p.parent.name for p in files})
        index = {name: i for i, name in enumerate(self.names)}
        self.labels = [index[p.parent.name] for p in files]

    def name(self, index: int) -> str:
        return str(self._files[index])

    def _read(self, index: int) -> U8:
        return read_picture(self._files[index])


class _Zip(LabelledPictures):
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except _BAD_ZIP as error:
            raise SourceError(f"cannot be read as a zip: {error}", path) from None
        files = sorted(name for name in self._zip.namelist() if is_picture(name) and len(PurePosixPath(name).parts) > 1)
        if not files:
            raise SourceError("no images in folders named after their classes (class/name.jpg)", path)
        self._files = files
        self._lock = threading.Lock()
        self.names = sorted({PurePosixPath(name).parent.name for name in files})
        index = {name: i for i, name in enumerate(self.names)}
        self.labels = [index[PurePosixPath(name).parent.name] for name in files]

    def name(self, index: int) -> str:
        return f"{self.path}: {self._files[index]}"

    def _read(self, index: int) -> U8:
        try:
            with self._lock:
                data = self._zip.read(self._files[index])
        except _BAD_ZIP as error:
            raise BadPicture(f"corrupt image ({error})") from None
        return decode_picture(data)


class _Arrays(LabelledPictures):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = None
        try:
            with np.load(path, allow_pickle=False) as file:
                missing = [key for key in ("images", "labels") if key not in file]
                if missing:
                    raise SourceError(f"has no array {missing[0]!r}; it has: {', '.join(file.files)}", path)
                images, labels = file["images"], file["labels"]
        except (*_BAD_ZIP, ValueError, MemoryError) as error:  # an array may claim any size
            raise SourceError(f"cannot be read as an NPZ file: {error}", path) from None
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise SourceError(
                f"images must be uint8 [N, H, W] or [N, H, W, 3], not {images.dtype} {list(images.shape)}", path
            )
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
            raise SourceError(
                f"labels must be whole numbers [{len(images)}], not {labels.dtype} {list(labels.shape)}", path
            )
        if not images.size:
            raise SourceError("has no images", path)
        self._images = images
        self.labels = labels.tolist()

    def name(self, index: int) -> str:
        return f"{self.path}: image {index}"

    def _read(self, index: int) -> U8:
        image = self._images[index]
        if image.ndim == 2:
            return np.repeat(image[:, :, None], 3, 2)
        return np.ascontiguousarray(image[:, :, ::-1])
