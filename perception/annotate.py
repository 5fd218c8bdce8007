"""Annotating recorded and live video into files: which sources make which outputs, one after the other.

    outputs = Outputs(video="out/", jsonl="out/")
    for result in annotate_all(["a.mp4", "b.mp4"], model, outputs):
        print(result.source, result.report or result.error)

One bad file never stops the rest: its error is in its result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.errors import PerceptionError, SourceError, UsageError, out_of_memory
from perception.pipeline import Report, run
from perception.sinks import PICTURES, Sink, open_sink
from perception.sinks.shared import SharedSink
from perception.sources.address import Address
from perception.sources.media import check_there, find_media
from perception.sources.uri import exists, is_folder, kind_of, redact

if TYPE_CHECKING:
    from perception.model import Model
    from perception.sources.base import Source
    from perception.stages.factories import StageFactory
    from perception.types import Picture, Prediction, Stage

STDOUT = "-"


@dataclass(frozen=True)
class Outputs:
    """Files and folders for results.

    For one source each is a file (or a folder that ends in ``/``). For several, a folder; those of `TABLES` may be one
    file for all, in which each row names its source.

    Attributes:
        video: annotated video (``.mp4``, ``.mkv``, ``.webm``, ``.mov``), or an annotated picture (``.jpg``, ``.png``,
            ``.webp``); in a folder, annotated pictures if the source is images.
        jsonl: JSON Lines, one object a frame. ``-`` is standard output.
        coco: COCO JSON of detections.
        csv: one row per detection.
        parquet: one row per detection, columnar.
        masks: folder of class-mask PNGs.
        images: folder of annotated frames.
        panoptic: folder of COCO panoptic PNGs and their JSON; wants a `perception.stages.panoptic.PanopticStage`.
        counts: CSV of the number of boxes by class, one row per frame.
        mot: MOT text of the boxes and their identities; wants a `perception.stages.track.TrackStage`.
    """

    video: str | None = None
    jsonl: str | None = None
    coco: str | None = None
    csv: str | None = None
    parquet: str | None = None
    masks: str | None = None
    images: str | None = None
    panoptic: str | None = None
    counts: str | None = None
    mot: str | None = None

    def given(self) -> dict[str, str]:
        """Return the outputs that are asked for, by kind."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


SUFFIXES = {
    "video": ".mp4", "jsonl": ".jsonl", "coco": ".json", "csv": ".csv", "parquet": ".parquet", "counts": ".counts.csv",
    "mot": ".txt",
}  # fmt: skip
"""The ending of a file that is named after its source."""

FILES = (*SUFFIXES, "picture")
"""Outputs that are files; the others are folders."""

TABLES = ("jsonl", "csv", "parquet", "counts")
"""Outputs that may be one file for several sources: their rows carry the source."""


@dataclass
class Result:
    """The outcome of one source: a report, or the error that ended it, or neither where it was skipped.

    Attributes:
        source: what was opened.
        outputs: paths by kind.
        report: what was done, where nothing failed.
        error: what failed.
        skipped: its outputs were there already.
        number, total: its place among the sources, from 1.
    """

    source: str
    outputs: dict[str, str] = field(default_factory=dict)
    report: Report | None = None
    error: PerceptionError | None = None
    skipped: bool = False
    number: int = 1
    total: int = 1

    def is_there(self) -> bool:
        """Return whether all of its outputs exist."""
        return all(_is_there(kind, Path(path)) for kind, path in self.outputs.items())


def _is_there(kind: str, path: Path) -> bool:
    if kind in FILES:
        return exists(path)
    if kind == "panoptic":
        return exists(path / "panoptic.json")
    try:
        return any(path.iterdir())
    except OSError:  # told when it is written
        return False


def plan(sources: Sequence[str], outputs: Outputs, *, recursive: bool = False) -> list[Result]:
    """Plan the outputs that each source makes; nothing is opened yet.

    Args:
        sources: URIs. Folders and globs stand for the videos that they hold, and for their images.
        outputs: what to write where.
        recursive: look into subfolders too; folders of outputs keep their structure.

    Raises:
        UsageError: no output at all, several sources or outputs for one file, or an output that is a source.
    """
    given = outputs.given()
    if not given:
        raise UsageError(f"nothing to write: give at least one output ({', '.join(f.name for f in fields(Outputs))})")
    own = {Path(path).resolve() for kind, path in given.items() if kind not in SUFFIXES or _names_folder(path)}
    found = [media for source in sources for media in find_media(source, recursive, own)]
    results: list[Result] = []
    taken: set[str] = set()
    for media in found:
        name = unique = "/".join(filter(None, [*map(_plain, media.folder.split("/")), stem(media.uri)]))
        number = 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        taken.add(unique)
        made = dict(_place(kind, path, media.uri, unique, len(found) > 1) for kind, path in given.items())
        results.append(Result(media.uri, made, number=len(results) + 1, total=len(found)))
    _check_files(results)
    return results


def _common(results: Sequence[Result]) -> dict[str, str]:
    """Return the outputs that are one file for all sources: tables."""
    return dict(results[0].outputs.items() & results[1].outputs.items()) if len(results) > 1 else {}


def _check_files(results: Sequence[Result]) -> None:
    """Refuse to write two outputs into one file, and over a file that is still to be read.

    Raises:
        UsageError: that would happen.
    """
    sources = {file for file in (_file_id(result.source) for result in results) if file is not None}
    for result in results:
        names: dict[str, str] = {}
        for kind, path in result.outputs.items():
            if kind not in FILES:
                continue
            other = names.setdefault(path if path == STDOUT else str(Path(path).resolve()), kind)
            if other != kind:
                raise UsageError(f"{other} and {kind} cannot share one file; give each its own name", path)
            if _file_id(path) in sources:
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


def _place(kind: str, path: str, source: str, name: str, several: bool) -> tuple[str, str]:
    """Return the kind and path of one output of one source."""
    suffix = SUFFIXES.get(kind)
    if suffix is None:  # a folder in any case
        return kind, str(Path(path) / name) if several else path
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
    if kind == "video" and _is_images(source):
        return "images", str(Path(path) / name) if several else path
    return kind, str(Path(path) / f"{name}{suffix}")


def _is_images(source: str) -> bool:
    """True where the source is images: in a folder, their annotated form is images too."""
    try:
        return kind_of(source) == "images"
    except SourceError:  # told when it is opened
        return False


def annotate_all(
    sources: Sequence[str],
    model: Model,
    outputs: Outputs,
    *,
    annotator: Callable[[Prediction], Picture],
    stages: Sequence[Stage | StageFactory] = (),
    source_options: dict[str, Any] | None = None,
    sink_options: dict[str, dict[str, Any]] | None = None,
    overwrite: bool = False,
    recursive: bool = False,
    skip_existing: bool = False,
    started: Callable[[Result, Source], Callable[[int, int], None] | None] | None = None,
) -> Iterator[Result]:
    """Annotate sources one after the other.

    Args:
        sources: URIs; folders and globs stand for the videos and images that they hold.
        model: a loaded model.
        outputs: what to write where.
        annotator: draws predictions.
        stages: applied to each prediction before it is drawn; factories make one for each source.
        source_options: arguments of ``open_source``.
        sink_options: arguments of ``open_sink`` by kind of output.
        overwrite: replace existing files.
        recursive: look into subfolders too.
        skip_existing: skip sources whose outputs are all there. A source of which only some are there is done again
            if ``overwrite`` is given, and an error else.
        started: called when a source is open; may return a progress callback (frames done, frames dropped).

    Yields:
        one result for each source, when it is done. An interrupted one is the last.

    Raises:
        UsageError: the outputs do not fit the sources.
    """
    from perception.sources import open_source

    results = plan(sources, outputs, recursive=recursive)
    options = sink_options or {}

    def sink(kind: str, path: str) -> Sink:
        return open_sink(path, kind=kind, overwrite=overwrite, **options.get(kind, {}))

    common = _common(results)
    if skip_existing and common:
        raise UsageError("a table of several sources cannot skip any; give it a folder", *list(common.values())[:1])
    with ExitStack() as batch:
        shared = {kind: batch.enter_context(SharedSink(sink(kind, path))) for kind, path in common.items()}
        for result in results:
            if skip_existing and result.is_there():
                result.skipped = True
                yield result
                continue
            try:
                check_there(result.source)
                with open_source(result.source, **(source_options or {})) as source:
                    sinks = [shared.get(kind) or sink(kind, path) for kind, path in result.outputs.items()]
                    progress = started(result, source) if started is not None else None
                    result.report = run(
                        source, model, sinks=sinks, annotator=annotator, stages=stages, progress=progress
                    )
            except PerceptionError as error:
                result.error = error
            except Exception as error:
                result.error = out_of_memory(error, redact(result.source))
                if result.error is None:
                    raise
            yield result
            if result.report is not None and result.report.interrupted:
                return
