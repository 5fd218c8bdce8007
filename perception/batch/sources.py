"""The sources of a batch: what they were when they were read, and how large they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from perception.annotate.result import Result, file_state
from perception.common.objects import ObjectPath, is_object
from perception.errors import PerceptionError, SourceError, UsageError
from perception.sources.images import find_images
from perception.sources.uri import kind_of, redact


def read_list(text: str) -> list[str]:
    """Return the sources of a list: one a line, or divided by zero bytes as ``find -print0`` writes them."""
    names = text.split("\0") if "\0" in text else text.splitlines()
    return [name for name in names if name.strip()]


def common_folder(names: Iterable[str]) -> Path | None:
    """Return the folder that all files of a list lie in, absolute; None where there is none, as for addresses."""
    names = list(names)
    if any(map(is_object, names)):
        return None
    try:
        return Path(os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in names]))  # noqa: PTH100, PTH120
    except ValueError:  # of different drives
        return None


def check_recorded(results: Iterable[Result]) -> None:
    """Check that sources can be read again.

    Raises:
        UsageError: one is a camera, a stream or a pipe.
    """
    for result in results:
        try:
            kind = kind_of(result.source)
        except SourceError:  # told when it is opened
            continue
        if kind in ("camera", "csi", "stream", "stdin"):
            raise UsageError("a batch is of files; annotate this without jobs and resume", redact(result.source))


def state_of(result: Result) -> tuple[list[Any], int]:
    """Return what tells whether a source has changed, and its size in bytes.

    A file has its size and time of change; images of a folder have a digest of theirs and their names.
    """
    if is_object(result.source):
        try:
            found = ObjectPath(result.source).state()
        except OSError:  # told when it is opened
            found = []
        return found, found[0] if found else 0
    path = Path(result.source)
    if not result.pictures or path.is_file():
        state = file_state(path)
        return state, state[0] if state else 0
    try:
        images = find_images(result.source)
    except PerceptionError:  # told when it is opened
        return [], 0
    chosen = [image for image in images if result.chosen is None or result.chosen.takes(image)]
    states = [(image.name, file_state(image)) for image in chosen]
    digest = hashlib.sha256(repr(states).encode("utf-8", "backslashreplace")).hexdigest()
    return [len(states), digest], sum(state[0] for _, state in states if state)
