"""Images: one file, a folder, or a glob. Each may have its own size.

Images carry no clock. With ``fps`` they are taken as a film of that rate; without, each stands for one second, and
``pts`` is None. EXIF orientation is applied, gray becomes BGR, 16 bits become 8, alpha is dropped.
"""

from __future__ import annotations

import glob
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from perception.common.bounds import Bounds
from perception.common.text import counted, listed
from perception.errors import SourceError
from perception.sources.base import Selection, Source, log
from perception.sources.heif import is_heif, read_heif
from perception.sources.uri import IMAGE_SUFFIXES, VIDEO_SUFFIXES, exists, is_folder
from perception.types import U8, Frame, SourceInfo

_SLACK = 1e-6  # seconds: what the user types is rarely a whole number of frames
_NOT_READ = frozenset((".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".gif", ".psd", ".svg"))
"""Pictures to whoever made them, and none to what decodes here: they are named and not passed over in silence."""
_PNG = b"\x89PNG\r\n\x1a\n"
_SLACK_BYTES = 1 << 24
_SMALL = 1 << 19
"""Bytes; what larger files may claim is more than OpenCV takes."""


class ImageSource(Source):
    """Image files in natural order (``2.png`` before ``10.png``). ``Frame.source`` is each file's path.

    A file that cannot be read is skipped with a warning and counted in ``corrupt``; ``Frame.index`` counts it.

    Args:
        uri: an image file, a folder (not what lies deeper), or a glob (``**`` reaches deeper).
        selection: which images.
        fps: images per second, if they are a film.
        bounds: what it is held to.
        chosen: which images of a folder or a glob are read; None: all.

    Raises:
        SourceError: nothing is there, none can be read, or one is too large.
    """

    def __init__(
        self,
        uri: str,
        selection: Selection,
        *,
        fps: float | None = None,
        bounds: Bounds | None = None,
        chosen: Callable[[Path], bool] | None = None,
    ) -> None:
        super().__init__()
        self._bounds = bounds or Bounds()
        self._select = selection
        self._uri = uri
        self._fps = None if fps is None else Fraction(fps).limit_denominator(1001)
        paths = [path for path in find_images(uri) if chosen is None or chosen(path)]
        rate = self._fps or Fraction(1)
        selected = [i for i in range(len(paths)) if selection.start - _SLACK <= i / rate < selection.end - _SLACK]
        self._chosen = [(i, paths[i]) for i in selected[:: selection.every]]
        if not self._chosen:
            raise SourceError(f"none of its images ({len(paths)}) is after second {selection.start:g}", uri)
        self._at = 0
        first = self._next_readable()
        if first is None:
            raise SourceError(_unreadable(paths), uri)
        self._first: Frame | None = first
        path = Path(uri)
        self.info = SourceInfo(
            uri=uri,
            kind="images",
            width=first.width,
            height=first.height,
            fps=self._fps,
            time_base=None if self._fps is None else 1 / self._fps,
            frame_count=min(len(self._chosen), selection.max_frames or len(self._chosen)),
            exact_count=True,
            path=uri if path.is_file() else None,
            start=selection.start,
            duration=selection.duration,
            every=selection.every,
        )

    def _next_readable(self) -> Frame | None:
        while self._at < len(self._chosen):
            self._bounds.check(self._uri)
            index, path = self._chosen[self._at]
            self._at += 1
            image = read_image(path, self._bounds)
            if image is None:
                self.corrupt += 1
                self.unreadable.append(str(path))
                if len(self._chosen) > 1:
                    log.warning("%s: cannot be read as an image; skipped", path)
                continue
            return Frame(
                image,
                index=index,
                time=float(index / (self._fps or 1)),
                source=str(path),
                pts=None if self._fps is None else index,
                time_base=None if self._fps is None else 1 / self._fps,
                arrived=time.monotonic(),
            )
        return None

    def _read(self) -> Iterator[Frame]:
        frame, self._first = self._first, None
        given = 0
        while frame is not None:
            yield frame
            given += 1
            if given == self._select.max_frames:
                return
            frame = self._next_readable()

    def _release(self) -> None:
        self._first = None


def find_images(uri: str) -> list[Path]:
    """List the image files that ``uri`` names, in natural order.

    Raises:
        SourceError: there are none, or the folder cannot be read.
    """
    path = Path(uri)
    if is_folder(path):
        try:
            there = sorted(p for p in path.iterdir() if p.is_file())
        except OSError as error:
            raise SourceError(f"the folder cannot be read: {error.strerror}", uri) from None
        files = [p for p in there if p.suffix.lower() in IMAGE_SUFFIXES]
        others = [p.name for p in there if p.suffix.lower() in _NOT_READ]
        told = ""
        if others:
            told = f"{listed(others)} cannot be read: convert them to JPEG or PNG"
        if not files:
            _refuse_videos("a folder", there, uri)
            told = told or "looked for .jpg, .png, .heic, .avif, .tif, .webp, .bmp and the like"
            raise SourceError(f"no images in this folder, nor videos ({told})", uri)
        if told:
            log.warning("%s: %s", uri, told)
    elif exists(path):
        return [path]
    elif glob.has_magic(uri):
        matches = [Path(p) for p in glob.glob(uri, recursive=True)]  # noqa: PTH207 (takes absolute patterns)
        files = [p for p in matches if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        if not files:
            _refuse_videos("a pattern", sorted(matches), uri)
            what = f"matches {counted(len(matches), 'file')}, none of them an image" if matches else "matches nothing"
            raise SourceError(f"this pattern {what}", uri)
    else:
        raise SourceError("no such file", uri)
    return sorted(files, key=natural_key)


def _refuse_videos(what: str, paths: Sequence[Path], uri: str) -> None:
    """Explain that several videos are not one source.

    Raises:
        SourceError: there are videos among the paths.
    """
    videos = sorted((p for p in paths if p.suffix.lower() in VIDEO_SUFFIXES), key=natural_key)
    if videos:
        names = listed([p.name for p in videos])
        raise SourceError(f"{what} of videos is not one source; open each video by itself: {names}", uri)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts digits by their value and the rest without regard to case."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.casefold()) for p in parts]


def read_image(path: Path, bounds: Bounds | None = None) -> U8 | None:
    """Read an image as uint8 ``[H, W, 3]`` BGR, upright; None if it cannot be read.

    Raises:
        SourceError: it is larger than ``bounds`` allow.
    """
    bounds = bounds or Bounds()
    if bounds.max_pixels is not None:
        _check_header(path, bounds)
    try:
        # Bytes and not a name: cv2.imread cannot open every name on every system.
        data = np.fromfile(path, np.uint8)
        if bounds.max_pixels is None:
            bounds = Bounds.of_file(len(data))
            if len(data) < _SMALL:
                _check_header(path, bounds)
        if is_heif(data[:12].tobytes()):
            return read_heif(path, bounds)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) and not _claims_too_much(data) else None
    except (OSError, cv2.error):
        return None
    if image is None:
        return None
    bounds.check_size(image.shape[1], image.shape[0], str(path))
    return np.ascontiguousarray(image, np.uint8)


def _claims_too_much(data: U8) -> bool:
    """Return whether a chunk of a PNG claims to be far longer than the file: OpenCV would allocate that first."""
    at, left = len(_PNG), len(data)
    if data[:at].tobytes() != _PNG:
        return False
    while at + 12 <= left:
        length = int.from_bytes(data[at : at + 4].tobytes(), "big")
        if length > left + _SLACK_BYTES:
            return True
        at += 12 + length
    return False


def _check_header(path: Path, bounds: Bounds) -> None:
    """Check the size before anything is decoded, where Pillow is installed (as with the server) and can read it."""
    try:
        from PIL import Image
    except ImportError:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit is ours
            with Image.open(path) as header:
                width, height = header.size
    except Image.DecompressionBombError:
        raise SourceError(f"is too large: at most {bounds.max_pixels} pixels {bounds.reason}", path) from None
    except Exception:  # Pillow raises whatever a damaged header leads to; the decoder will tell
        return
    bounds.check_size(width, height, str(path))


def _unreadable(paths: list[Path]) -> str:
    if len(paths) > 1:
        return f"none of its {len(paths)} images can be read"
    try:
        with paths[0].open("rb") as file:
            if not file.read(1):
                return "the file is empty"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "not an image that can be read; it may be damaged or not what its name says"
