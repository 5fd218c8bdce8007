"""Annotating recorded and live video into files: which sources make which outputs, one after the other.

    outputs = Outputs(video="out/", jsonl="out/")
    for result in annotate_all(["a.mp4", "b.mp4"], model, outputs):
        print(result.source, result.report or result.error)

One bad file never stops the rest: its error is in its result.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.errors import PerceptionError, SourceError, UsageError, out_of_memory
from perception.pipeline import Report, run
from perception.sinks import PICTURES, Sink, open_sink
from perception.sinks.events import DeliverySink
from perception.sinks.shared import SharedSink
from perception.sources.address import Address
from perception.sources.media import check_there, find_media, is_glob
from perception.sources.uri import exists, is_folder, kind_of, redact
from perception.stages.factories import StageFactory

if TYPE_CHECKING:
    from perception.events.delivery import Delivery
    from perception.footage.recorder import FootageRecorder
    from perception.footage.settings import ClipSettings
    from perception.model import Model
    from perception.sources.base import Source
    from perception.types import Picture, Prediction, Stage

STDOUT = "-"

_log = logging.getLogger("perception")


@dataclass(frozen=True)
class Outputs:
    """Files and folders for results.

    For one source each is a file (or a folder that ends in ``/``). For several, a folder; those of `TABLES` may be one
    file for all, in which each row names its source.

    Attributes:
        video: annotated video (``.mp4``, ``.mkv``, ``.webm``, ``.mov``), or an annotated picture (``.jpg``, ``.png``,
            ``.webp``); in a folder, annotated pictures (``.jpg``) if the source is images.
        jsonl: JSON Lines, one object a frame. ``-`` is standard output.
        coco: COCO JSON of detections.
        csv: one row per detection.
        parquet: one row per detection, columnar.
        masks: folder of class-mask PNGs.
        images: folder of annotated frames.
        panoptic: folder of COCO panoptic PNGs and their JSON; wants a `perception.stages.panoptic.PanopticStage`.
        counts: CSV of the number of boxes by class, one row per frame.
        mot: MOT text of the boxes and their identities; wants a `perception.stages.track.TrackStage`.
        summary: CSV of what rules saw, by minute; wants a `perception.stages.rules.RulesStage`.
        heatmap: picture of where boxes were for how long.
        trajectories: picture of the ways that boxes have come; wants a `perception.stages.track.TrackStage`.
        events: JSON Lines of what stages noticed, such as `perception.stages.rules.RulesStage`.
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
    summary: str | None = None
    heatmap: str | None = None
    trajectories: str | None = None
    events: str | None = None

    def given(self) -> dict[str, str]:
        """Return the outputs that are asked for, by kind."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


SUFFIXES = {
    "video": ".mp4", "jsonl": ".jsonl", "coco": ".json", "csv": ".csv", "parquet": ".parquet", "counts": ".counts.csv",
    "mot": ".txt", "summary": ".summary.csv", "heatmap": ".heatmap.png", "trajectories": ".trajectories.png",
    "events": ".events.jsonl",
}  # fmt: skip
"""The ending of a file that is named after its source."""

FILES = (*SUFFIXES, "picture")
"""Outputs that are files; the others are folders."""

TABLES = ("jsonl", "csv", "parquet", "counts", "summary", "events")
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
        shared: kinds of outputs that are one file for all sources.
        unreadable: images of it that could not be read and were left out.
        pictures: whether its frames are images.
    """

    source: str
    outputs: dict[str, str] = field(default_factory=dict)
    report: Report | None = None
    error: PerceptionError | None = None
    skipped: bool = False
    number: int = 1
    total: int = 1
    shared: frozenset[str] = frozenset()
    unreadable: Sequence[str] = ()
    pictures: bool = False

    @property
    def whole(self) -> bool:
        """Whether all of the source was done."""
        return self.report is not None and not self.report.interrupted and not self.unreadable

    @property
    def own(self) -> dict[str, str]:
        """Paths by kind of the outputs that are not shared with other sources."""
        return {kind: path for kind, path in self.outputs.items() if kind not in self.shared}

    def is_there(self) -> bool:
        """Return whether all of its outputs exist, of the whole source."""
        return not self.is_unfinished() and all(_is_there(kind, Path(path)) for kind, path in self.outputs.items())

    def is_unfinished(self) -> bool:
        """Return whether an earlier run ended before the source did, and said so beside its outputs."""
        return any(exists(_note(path)) for path in self.own.values())

    def there(self) -> set[str]:
        """Return the kinds of its own outputs that exist."""
        return {kind for kind, path in self.own.items() if path != STDOUT and _is_there(kind, Path(path))}

    def mark_unfinished(self, kinds: set[str]) -> None:
        """Say beside outputs of its own that they are not of the whole source."""
        for kind in kinds:
            with suppress(OSError):  # a full disk, perhaps, which is told already
                _note(self.own[kind]).touch()

    def mark_finished(self) -> None:
        """Take back what an earlier run said of its outputs."""
        for path in self.own.values():
            with suppress(OSError):
                _note(path).unlink(missing_ok=True)


UNFINISHED = ".unfinished"
"""The ending of an empty file beside an output that is complete as a file, but not of the whole source."""


def _note(path: str) -> Path:
    name = Path(path).name  # none of the working directory
    return Path(path).with_name(f"{name}{UNFINISHED}") if name else Path(path) / UNFINISHED


def _is_there(kind: str, path: Path) -> bool:
    if kind in FILES:
        return exists(path)
    if kind == "panoptic":
        return exists(path / "panoptic.json")
    try:
        return any(file.suffix == _PICTURES[kind] for file in path.iterdir())
    except OSError:  # told when it is written
        return False


_PICTURES = {"images": ".jpg", "masks": ".png"}
"""The ending of the files in a folder, in which other sources' outputs may be too."""


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
        several = len(found) > 1
        # Pictures of the only folder, or pattern, lie where the videos of it do.
        beside = several and [Path(media.uri)] == [*map(Path, sources)]
        made = dict(_place(kind, path, media.uri, unique, several, beside) for kind, path in given.items())
        results.append(
            Result(media.uri, made, number=len(results) + 1, total=len(found), pictures=_is_images(media.uri))
        )
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


def _place(kind: str, path: str, source: str, name: str, several: bool, beside: bool) -> tuple[str, str]:
    """Return the kind and path of one output of one source; ``beside``: its pictures need no folder of its name."""
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
    if kind == "video" and _is_images(source) and not (is_folder(Path(source)) or is_glob(source)):
        return "picture", str(Path(path) / f"{name}.jpg")
    if kind == "video" and _is_images(source):
        return "images", str(Path(path) / name) if several and not beside else path
    return kind, str(Path(path) / f"{name}{suffix}")


def _is_images(source: str) -> bool:
    """True where the source is images: in a folder, their annotated form is images too."""
    try:
        return kind_of(source) == "images"
    except SourceError:  # told when it is opened
        return False


def _of_pictures(stages: Sequence[Stage | StageFactory], source: Source) -> list[Stage | StageFactory]:
    """Return the stages for a source of pictures: one alone is not tracked, several are, as frames of a video."""
    made = [stage for stage in stages if isinstance(stage, StageFactory) and stage.still is not None]
    if source.info.frame_count != 1:
        if made:
            _log.warning(
                "%s: its %d pictures are tracked as if they were frames of one video; photos of different scenes lose "
                "boxes by that",
                source.info.uri, source.info.frame_count,
            )  # fmt: skip
        return [*stages]
    return [StageFactory(s.name, s.still) if isinstance(s, StageFactory) and s.still else s for s in stages]


@contextmanager
def _recorder(clips: ClipSettings, draw: Callable[[Prediction], Picture], source: str) -> Iterator[FootageRecorder]:
    """Give what makes the clips and snapshots of a source; they are finished at the end."""
    from perception.footage.recorder import FootageRecorder
    from perception.footage.store import FootageStore

    folder = clips.folder or Path()
    recorder = FootageRecorder(
        FootageStore(folder, private=False), clips, draw, link=lambda name: str(folder / name), name=redact(source)
    )
    try:
        yield recorder
    finally:
        recorder.close()


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
    delivery: Delivery | None = None,
    clips: ClipSettings | None = None,
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
        skip_existing: skip sources whose outputs are all there. One that an earlier run of several sources did not get
            to the end of is done again. One of which only some outputs are there is done again if ``overwrite`` is
            given, and an error else.
        delivery: of the events, beside what is written; the caller closes it.
        clips: keep clips and snapshots of the events; in its ``folder``, without limits.
        started: called when a source is open; may return a progress callback (frames done, frames dropped).

    Yields:
        one result for each source, when it is done. An interrupted one is the last.

    Raises:
        UsageError: the outputs do not fit the sources.
    """
    from perception.sources import open_source

    results = plan(sources, outputs, recursive=recursive)
    options = sink_options or {}

    def sink(kind: str, path: str, again: bool = False) -> Sink:
        return open_sink(path, kind=kind, overwrite=overwrite or again, **options.get(kind, {}))

    common = _common(results)
    for result in results:
        result.shared = frozenset(common)
    if skip_existing and common:
        raise UsageError("a table of several sources cannot skip any; give it a folder", *list(common.values())[:1])
    with ExitStack() as batch:
        shared = {kind: batch.enter_context(SharedSink(sink(kind, path))) for kind, path in common.items()}
        for result in results:
            if skip_existing and result.is_there():
                result.skipped = True
                yield result
                continue
            again = skip_existing and result.is_unfinished()
            live, before = False, result.there()
            try:
                check_there(result.source)
                with ExitStack() as held:
                    footage = None if clips is None else held.enter_context(_recorder(clips, annotator, result.source))
                    packets = None if footage is None else footage.packets
                    source = held.enter_context(open_source(result.source, packets=packets, **(source_options or {})))
                    live = source.info.live
                    before = set() if overwrite or again else before
                    sinks = [shared.get(kind) or sink(kind, path, again) for kind, path in result.outputs.items()]
                    sinks += [] if delivery is None else [DeliverySink(delivery)]
                    progress = started(result, source) if started is not None else None
                    steps = [*stages] if not result.pictures else _of_pictures(stages, source)
                    steps += [] if footage is None else [footage]
                    result.report = run(
                        source, model, sinks=sinks, annotator=annotator, stages=steps, progress=progress
                    )
                    result.unreadable = tuple(source.unreadable)
            except PerceptionError as error:
                result.error = error
            except Exception as error:
                result.error = out_of_memory(error, redact(result.source))
                if result.error is None:
                    raise
            if result.whole:
                result.mark_finished()
            elif not live and (len(results) > 1 or skip_existing or result.unreadable):
                result.mark_unfinished(result.there() - before)
            yield result
            if result.report is not None and result.report.interrupted:
                return
