"""Annotating recorded and live video into files: which sources make which outputs, one after the other.

    outputs = Outputs(video="out/", jsonl="out/")
    for result in annotate_all(["a.mp4", "b.mp4"], model, outputs):
        print(result.source, result.report or result.error)

One bad file never stops the rest: its error is in its result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.errors import PerceptionError, SourceError, UsageError
from perception.pipeline import Report, run
from perception.sources.address import Address
from perception.sources.uri import is_folder, kind_of, redact

if TYPE_CHECKING:
    from perception.model import Model
    from perception.sources.base import Source
    from perception.stages.factories import StageFactory
    from perception.types import Picture, Prediction, Stage

VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
"""Files in a folder that are taken for videos."""

STDOUT = "-"


@dataclass(frozen=True)
class Outputs:
    """Files and folders for results.

    For one source each is a file (or a folder that ends in ``/``); for several, a folder.

    Attributes:
        video: annotated video (``.mp4``, ``.mkv``, ``.webm``, ``.mov``); annotated pictures if the source is images.
        jsonl: JSON Lines, one object a frame. ``-`` is standard output.
        coco: COCO JSON of detections.
        csv: one row per detection.
        parquet: one row per detection, columnar.
        masks: folder of class-mask PNGs.
        images: folder of annotated frames.
        panoptic: folder of COCO panoptic PNGs and their JSON; wants a `perception.stages.panoptic.PanopticStage`.
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
    mot: str | None = None

    def given(self) -> dict[str, str]:
        """Return the outputs that are asked for, by kind."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


SUFFIXES = {"video": ".mp4", "jsonl": ".jsonl", "coco": ".json", "csv": ".csv", "parquet": ".parquet", "mot": ".txt"}
"""The ending of a file that is named after its source."""


@dataclass
class Result:
    """The outcome of one source: a report, or the error that ended it (``report`` is then None)."""

    source: str
    outputs: dict[str, str] = field(default_factory=dict)
    report: Report | None = None
    error: PerceptionError | None = None


def expand(sources: Sequence[str]) -> list[str]:
    """Sources with each folder that holds videos replaced by those videos, sorted by name."""
    expanded: list[str] = []
    for source in sources:
        expanded += _videos(Path(source)) or [source]
    return expanded


def _videos(folder: Path) -> list[str]:
    """Return the videos in a folder; none where it cannot be read, which is told when it is opened as a source."""
    if not is_folder(folder):
        return []
    try:
        return sorted(str(p) for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    except OSError:
        return []


def plan(sources: Sequence[str], outputs: Outputs) -> list[Result]:
    """Plan the outputs that each source makes; nothing is opened yet.

    Raises:
        UsageError: no output at all, several sources or outputs for one file, or an output that is a source.
    """
    given = outputs.given()
    if not given:
        raise UsageError(
            "nothing to write: give -o OUT, or one of --jsonl, --coco, --csv, --parquet, --mot, --masks, --images, "
            "--panoptic"
        )
    sources = expand(sources)
    results, taken = [], set()
    for source in sources:
        name = unique = stem(source)
        number = 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        taken.add(unique)
        made = dict(_place(kind, path, source, unique, len(sources) > 1) for kind, path in given.items())
        results.append(Result(source, made))
    _check_files(results)
    return results


def _check_files(results: Sequence[Result]) -> None:
    """Refuse to write two outputs into one file, and over a file that is still to be read.

    Raises:
        UsageError: that would happen.
    """
    sources = {file for file in (_file_id(result.source) for result in results) if file is not None}
    for result in results:
        names: dict[str, str] = {}
        for kind, path in result.outputs.items():
            if kind not in SUFFIXES:
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
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "source"


def _url_name(url: str) -> str:
    """Return the host of a URL and nothing else of it, which may be secret; ``csi0`` for a camera on a Jetson."""
    try:
        address = Address.read(url)
    except SourceError:  # no URL at all, which is told when it is opened
        return ""
    return f"{'csi' if address.scheme == 'csi' else ''}{address.host}"


def _place(kind: str, path: str, source: str, name: str, several: bool) -> tuple[str, str]:
    """Return the kind and path of one output of one source."""
    suffix = SUFFIXES.get(kind)
    if suffix is None:  # a folder in any case
        return kind, str(Path(path) / name) if several else path
    folder = path.endswith("/") or is_folder(Path(path))
    if several and not folder:
        if path == STDOUT or Path(path).suffix:
            raise UsageError(f"several sources need a folder for {kind}, not a file: for example out/", path)
        folder = True
    if not folder:
        return kind, path
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
    started: Callable[[Result, Source], Callable[[int, int], None] | None] | None = None,
) -> Iterator[Result]:
    """Annotate sources one after the other.

    Args:
        sources: URIs; folders of videos are expanded.
        model: a loaded model.
        outputs: what to write where.
        annotator: draws predictions.
        stages: applied to each prediction before it is drawn; factories make one for each source.
        source_options: arguments of ``open_source``.
        sink_options: arguments of ``open_sink`` by kind of output.
        overwrite: replace existing files.
        started: called when a source is open; may return a progress callback (frames done, frames dropped).

    Yields:
        one result for each source, when it is done. An interrupted one is the last.

    Raises:
        UsageError: the outputs do not fit the sources.
    """
    from perception.sinks import open_sink
    from perception.sources import open_source

    for result in plan(sources, outputs):
        try:
            with open_source(result.source, **(source_options or {})) as source:
                options = sink_options or {}
                sinks = [
                    open_sink(path, kind=kind, overwrite=overwrite, **options.get(kind, {}))
                    for kind, path in result.outputs.items()
                ]
                progress = started(result, source) if started is not None else None
                result.report = run(source, model, sinks=sinks, annotator=annotator, stages=stages, progress=progress)
        except PerceptionError as error:
            result.error = error
        yield result
        if result.report is not None and result.report.interrupted:
            return
