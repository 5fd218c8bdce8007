"""Videos and images that folders and globs hold, as sources to be opened one after the other."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.common.objects import ObjectPath, is_object
from perception.common.text import listed
from perception.errors import SourceError
from perception.sources.base import log
from perception.sources.choice import Choice
from perception.sources.images import natural_key
from perception.sources.uri import IMAGE_SUFFIXES, VIDEO_SUFFIXES, exists, is_folder, kind_of


@dataclass(frozen=True, slots=True)
class Media:
    """One source of a folder or a glob.

    Attributes:
        uri: what `perception.sources.open_source` takes: a video, or a folder or a glob of images.
        folder: where it lies below the folder that was named, with ``/``; empty at its top.
        chosen: which of its images are taken; None: all.
    """

    uri: str
    folder: str = ""
    chosen: Choice | None = None


def find_media(
    source: str, recursive: bool = False, without: Collection[Path | ObjectPath] = (), choice: Choice | None = None
) -> list[Media]:
    """Find the sources that a folder or a glob stands for: each of its videos, and its images together.

    What is left out, subfolders and other files, is logged. Hidden files are passed over.

    Args:
        source: what the user named. What is neither folder nor glob, or holds nothing, comes back as it is.
        recursive: look into subfolders too; links to folders are not followed.
        without: folders below it that are not looked into, resolved: those of the outputs.
        choice: which of the files of a folder or a glob are taken, None: all. Where none is, nothing comes back.
    """
    path = Path(source)
    if is_object(source):
        return list(_of_store(ObjectPath(source), recursive, without, choice))
    if is_folder(path):
        found = list(_of_folder(path, path, recursive, without, choice and choice.below(path)))
        return found if found or choice else [Media(source)]
    if not is_glob(source):
        return [Media(source)]
    matches = sorted((Path(p) for p in glob.glob(source, recursive=True)), key=natural_key)  # noqa: PTH207
    root = Path(*_fixed_parts(path))
    choice = choice and choice.below(root)
    files = [p for p in matches if p.is_file() and (choice is None or choice.takes(p))]
    found = [Media(str(p), _below(root, p.parent)) for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    if any(p.suffix.lower() in IMAGE_SUFFIXES for p in files):
        found.append(Media(source, chosen=choice))
    folders = [p for p in matches if p.is_dir() and p != root]
    if recursive:
        below = (media for folder in folders for media in _of_folder(root, folder, recursive, without, choice))
        found = list(dict.fromkeys((*found, *below)))
    elif "**" not in source:
        _tell(source, folders, [])
    return found if found or choice else [Media(source)]


def _of_store(
    root: ObjectPath, recursive: bool, without: Collection[Path | ObjectPath], choice: Choice | None
) -> Iterator[Media]:
    """Find the objects below a name, each image by itself; or the one of that name.

    Raises:
        SourceError: the store refuses.
    """
    try:
        if root.is_file():
            yield Media(str(root))
            return
        there = root.files()
    except OSError as error:
        raise SourceError(f"cannot be listed: {error.strerror}", str(root)) from None
    found = False
    for path, _ in there:
        below = path.relative_to(root)
        deep = len(below.parts) > 1 and not recursive
        taken = choice is None or choice.below(Path()).takes(Path(below))
        media = below.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
        ours = any(isinstance(own, ObjectPath) and str(path).startswith(f"{own}/") for own in without)
        if media and taken and not (deep or ours) and not any(part.startswith(".") for part in below.parts):
            found = True
            yield Media(str(path), _below(Path(), Path(below.parent)))
    if not found and choice is None:
        yield Media(str(root))


def is_glob(source: str) -> bool:
    """True where a source is a pattern of file names, and no file, folder or address."""
    try:
        return not exists(Path(source)) and kind_of(source) == "images" and glob.has_magic(source)
    except SourceError:  # told when it is opened
        return False


def check_there(source: str) -> None:
    """Check that a file or folder is there.

    Raises:
        SourceError: it is not; names what is there and spelled most alike.
    """
    path = Path(source)
    if exists(path) or is_glob(source) or kind_of(source) not in ("file", "images"):
        return
    what = "file" if path.suffix and not source.endswith("/") else "file or folder"
    raise SourceError(f"no such {what}{_nearest(path)}", source)


def _nearest(path: Path) -> str:
    """Return a hint: what is spelled most like the first part of a path that is not there."""
    while not exists(path.parent) and path.parent != path:
        path = path.parent
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def _of_folder(
    root: Path, folder: Path, recursive: bool, without: Collection[Path | ObjectPath], choice: Choice | None
) -> Iterator[Media]:
    try:
        there = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=natural_key)
    except OSError as error:
        if folder != root or choice:  # the root is told when it is opened as a source
            log.warning("%s: the folder cannot be read: %s", folder, error.strerror)
        return
    files = [p for p in there if p.is_file() and (choice is None or choice.takes(p))]
    folders = [p for p in there if p.is_dir() and not (without and p.resolve() in without)]
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    yield from (Media(str(p), _below(root, folder)) for p in videos)
    if images:
        yield Media(str(folder), "" if folder == root else _below(root, folder.parent), choice)
    walked = [p for p in folders if recursive and not p.is_symlink()]
    others = [p for p in files if p.suffix.lower() not in VIDEO_SUFFIXES | IMAGE_SUFFIXES]
    _tell(str(folder), [p for p in folders if p not in walked], others)
    for deeper in walked:
        yield from _of_folder(root, deeper, recursive, without, choice)


def _tell(where: str, folders: Sequence[Path], files: Sequence[Path]) -> None:
    if folders:
        log.warning("%s: subfolders are left out (recursive reads them): %s", where, _names(folders))
    if files:
        log.warning("%s: neither video nor image, left out: %s", where, _names(files))


def _names(paths: Sequence[Path]) -> str:
    return listed([p.name for p in paths])


def _below(root: Path, folder: Path) -> str:
    try:
        place = folder.relative_to(root).as_posix()
    except ValueError:
        return ""
    return "" if place == "." else place


def _fixed_parts(pattern: Path) -> list[str]:
    """Return the folders of a pattern that come before its first part with magic."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts
