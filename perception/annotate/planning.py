"""Which source makes which outputs, and how they are called; nothing is opened yet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from perception.annotate.outputs import FILES, STDOUT, SUFFIXES, TABLES, Outputs
from perception.annotate.result import Result
from perception.common.objects import ObjectPath, is_object, join, plain
from perception.errors import SourceError, UsageError
from perception.sinks import PICTURES
from perception.sources.address import Address
from perception.sources.choice import Choice
from perception.sources.media import find_media, is_glob
from perception.sources.uri import IMAGE_SUFFIXES, is_folder, kind_of, redact


def plan(
    sources: Sequence[str],
    outputs: Outputs,
    *,
    recursive: bool = False,
    choice: Choice | None = None,
    root: Path | None = None,
    names: Mapping[str, str] | None = None,
) -> list[Result]:
    """Plan the outputs that each source makes; nothing is opened yet.

    Args:
        sources: URIs. Folders and globs stand for the videos that they hold, and for their images.
        outputs: what to write where.
        recursive: look into subfolders too; folders of outputs keep their structure.
        choice: which files of folders and globs are taken; None: all.
        root: files that are named one by one keep the folders that they lie in below this one; None: no folders.
        names: what the outputs of sources are called, by absolute path or address; those of the others get other
            names. Where it is given, a single source is placed as one of several would be, so that more may come later.

    Raises:
        UsageError: no output at all, several sources or outputs for one file or address, or an output that is a
            source.
    """
    given = outputs.given()
    if not given and not outputs.publish:
        raise UsageError(f"nothing to write: give at least one output ({', '.join(f.name for f in fields(Outputs))})")
    stored = [plain(path) for path in (*sources, *given.values()) if is_object(path)]
    if names is None and stored:
        raise UsageError("object stores are read and written by a batch: `resume=True` makes one", stored[0])
    folders = [path for kind, path in given.items() if kind not in SUFFIXES or _names_folder(path)]
    own = {ObjectPath(path) if is_object(path) else Path(path).resolve() for path in folders}
    found = [media for source in sources for media in find_media(source, recursive, own, choice)]
    if not found:
        raise UsageError("there is no file here that is to be annotated", ", ".join(sources)[:200])
    if names is not None:  # a batch: what is named twice is done once
        found = list({os.path.abspath(media.uri): media for media in found}.values())  # noqa: PTH100
    several = len(found) > 1 or names is not None
    if several and outputs.publish:
        raise UsageError("one source is published at a time; give a single one", redact(outputs.publish[0]))
    names = names or {}  # a batch has had them before
    results: list[Result] = []
    taken = set(names.values())
    one_by_one = set(sources)
    numbers: dict[str, int] = {}
    for media in found:
        folder = media.folder or (_below(root, media.uri) if root is not None and media.uri in one_by_one else "")
        name = unique = "/".join(filter(None, [*map(_plain, folder.split("/")), stem(media.uri)]))
        while unique in taken:
            numbers[name] = numbers.get(name, 1) + 1
            unique = f"{name}-{numbers[name]}"
        unique = names.get(media.uri) or names.get(os.path.abspath(media.uri)) or unique  # noqa: PTH100
        taken.add(unique)
        # Pictures of the only folder, or pattern, lie where the videos of it do.
        beside = several and [Path(media.uri)] == [*map(Path, sources)]
        made = dict(_place(kind, path, media.uri, unique, several, beside) for kind, path in given.items())
        if "pictures" in made and Path(made.get("images", made["pictures"])) == Path(made["pictures"]):
            made = {"images" if kind == "pictures" else kind: place for kind, place in made.items()}
        results.append(
            Result(
                media.uri, made, number=len(results) + 1, total=len(found), pictures=_is_images(media.uri),
                name=unique, chosen=media.chosen, published=tuple(map(redact, outputs.publish)),
            )
        )  # fmt: skip
    _check_files(results)
    return results


def _below(root: Path, source: str) -> str:
    """Return the folder of a file from another one on, with ``/``; nothing where it is not below that."""
    try:
        return Path(os.path.abspath(source)).parent.relative_to(root.absolute()).as_posix()  # noqa: PTH100
    except ValueError:
        return ""


def _check_files(results: Sequence[Result]) -> None:
    """Refuse to write two outputs into one file, and over a file that is still to be read.

    Raises:
        UsageError: that would happen.
    """
    addresses = {result.source for result in results if is_object(result.source)}
    sources = {file for file in (_file_id(result.source) for result in results) if file is not None}
    for result in results:
        names: dict[str, str] = {}
        for kind, path in result.outputs.items():
            if kind not in FILES:
                continue
            other = names.setdefault(path if path == STDOUT else str(Path(path).resolve()), kind)
            if other != kind:
                raise UsageError(f"{other} and {kind} cannot share one file; give each its own name", path)
            if _file_id(path) in sources or path in addresses:
                raise UsageError("this file is also an input; choose another name or folder", path)


def _file_id(path: str) -> tuple[int, int] | None:
    """Return a number that identifies a file whatever its name is; None if there is no such file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def stem(source: str) -> str:
    """Return a file name for what is made of ``source``: a file's stem, a URL's host, ``camera0``."""
    if source == STDOUT:
        return "stdin"
    if source.isdigit():
        return f"camera{source}"
    if is_object(source):
        return _plain(ObjectPath(source).stem) or "source"
    if "://" in source or redact(source) != source:
        name = _url_name(source)
    else:
        name = Path(source.partition(":")[0] if source.startswith("synthetic:") else source).stem
    return _plain(name) or _plain(Path(source).resolve().name if is_folder(Path(source)) else "") or "source"


def _plain(name: str) -> str:
    """Return a name that every file system takes."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")


def _url_name(url: str) -> str:
    """Return the host of a URL and nothing else of it, which may be secret; ``csi0`` for a camera on a Jetson."""
    try:
        address = Address.read(url)
    except SourceError:  # no URL at all, which is told when it is opened
        return ""
    return f"{'csi' if address.scheme == 'csi' else ''}{address.host}"


def _names_folder(path: str) -> bool:
    return path.endswith("/") or is_folder(Path(path))


def _place(kind: str, path: str, source: str, name: str, several: bool, beside: bool) -> tuple[str, str]:
    """Return the kind and path of one output of one source; ``beside``: its pictures need no folder of its name."""
    suffix = SUFFIXES.get(kind)
    if suffix is None:  # a folder in any case
        return kind, join(path, name) if several else path
    folder = _names_folder(path)
    if several and not folder:
        named = path == STDOUT or Path(path).suffix
        if named and kind in TABLES:
            return kind, path
        if named:
            raise UsageError(f"several sources need a folder for {kind}, not a file: for example out/", path)
        folder = True
    if not folder:
        return "picture" if kind == "video" and Path(path).suffix[1:].lower() in PICTURES else kind, path
    if kind == "video" and _is_images(source) and not (is_folder(Path(source)) or is_glob(source)):
        return "picture", join(path, f"{name}.jpg")
    if kind == "video" and _is_images(source):
        return "pictures", join(path, name) if several and not beside else path
    return kind, join(path, f"{name}{suffix}")


def _is_images(source: str) -> bool:
    """True where the source is images: in a folder, their annotated form is images too."""
    try:
        kind = kind_of(source)
        return kind == "images" or (kind == "object" and ObjectPath(source).suffix.lower() in IMAGE_SUFFIXES)
    except SourceError:  # told when it is opened
        return False
