"""Annotating sources one after the other in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.annotate.outputs import Outputs
from perception.annotate.planning import plan
from perception.annotate.result import Result
from perception.common.phases import phase
from perception.errors import PerceptionError, UsageError, out_of_memory
from perception.pipeline import run
from perception.sinks import Sink, open_sink
from perception.sinks.events import DeliverySink
from perception.sinks.shared import SharedSink
from perception.sources.media import check_there
from perception.sources.uri import redact
from perception.stages.factories import StageFactory

if TYPE_CHECKING:
    from perception.events.delivery import Delivery
    from perception.footage.recorder import FootageRecorder
    from perception.footage.settings import ClipSettings
    from perception.model import Model
    from perception.sources.base import Source
    from perception.sources.choice import Choice
    from perception.types import Picture, Prediction, Stage

_log = logging.getLogger("perception")


def _common(results: Sequence[Result]) -> dict[str, str]:
    """Return the outputs that are one file for all sources: tables."""
    return dict(results[0].outputs.items() & results[1].outputs.items()) if len(results) > 1 else {}


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


def annotate_one(
    result: Result,
    model: Model,
    make_sinks: Callable[[], Sequence[Sink]],
    *,
    annotator: Callable[[Prediction], Picture],
    stages: Sequence[Stage | StageFactory] = (),
    source_options: dict[str, Any] | None = None,
    clips: ClipSettings | None = None,
    max_loss: float | None = None,
    started: Callable[[Result, Source], Callable[[int, int], None] | None] | None = None,
    copy: str | None = None,
) -> None:
    """Annotate one source of a plan; what became of it is put into its result.

    Args:
        result: of `perception.annotate.planning.plan`; gets ``report`` or ``error``, ``unreadable`` and ``live``.
        model: a loaded model.
        make_sinks: makes its outputs, once the source is open.
        annotator, stages, source_options, clips, max_loss, started: see `annotate_all`.
        copy: of the source, which is opened in its place and has its name everywhere.

    Raises:
        Exception: a fault of the package or of a stage, and none of the source or of an output.
    """
    from perception.sources import open_source
    from perception.sources.named import NamedSource

    try:
        check_there(result.source)
        with ExitStack() as held:
            footage = None if clips is None else held.enter_context(_recorder(clips, annotator, result.source))
            packets = None if footage is None else footage.packets
            chosen = None if result.chosen is None else result.chosen.takes
            with phase("source"):
                opened = open_source(copy or result.source, packets=packets, chosen=chosen, **(source_options or {}))
            source = held.enter_context(opened if copy is None else NamedSource(opened, result.source))
            result.live = source.info.live
            sinks = make_sinks()
            progress = started(result, source) if started is not None else None
            steps = [*stages] if not result.pictures else _of_pictures(stages, source)
            steps += [] if footage is None else [footage]
            result.report = run(
                source, model, sinks=sinks, annotator=annotator, stages=steps, progress=progress,
                max_loss=None if result.pictures else max_loss,
            )  # fmt: skip
            result.unreadable = tuple(source.unreadable)
    except PerceptionError as error:
        result.error = error
    except Exception as error:
        result.error = out_of_memory(error, redact(result.source))
        if result.error is None:
            raise


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
    choice: Choice | None = None,
    root: Path | None = None,
    skip_existing: bool = False,
    delivery: Delivery | None = None,
    clips: ClipSettings | None = None,
    max_loss: float | None = None,
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
        choice, root: see `perception.annotate.plan`.
        skip_existing: skip sources whose outputs are all there. One that an earlier run of several sources did not get
            to the end of is done again. One of which only some outputs are there is done again if ``overwrite`` is
            given, and an error else.
        delivery: of the events, beside what is written; the caller closes it.
        clips: keep clips and snapshots of the events; in its ``folder``, without limits.
        max_loss: let the model see only some of the frames of videos, see `perception.pipeline.run`.
        started: called when a source is open; may return a progress callback (frames done, frames dropped).

    Yields:
        one result for each source, when it is done. An interrupted one is the last.

    Raises:
        UsageError: the outputs do not fit the sources.
    """
    results = plan(sources, outputs, recursive=recursive, choice=choice, root=root)
    options = sink_options or {}

    def sink(kind: str, path: str, again: bool = False) -> Sink:
        return open_sink(path, kind=kind, overwrite=overwrite or again, **options.get(kind, {}))

    common = _common(results)
    for result in results:
        result.shared = frozenset(common)
    if skip_existing and outputs.publish:
        raise UsageError("what is published is not kept, so nothing tells whether it was; leave out `skip_existing`")
    if skip_existing and common:
        raise UsageError("a table of several sources cannot skip any; give it a folder", *list(common.values())[:1])
    with ExitStack() as batch:
        shared = {kind: batch.enter_context(SharedSink(sink(kind, path))) for kind, path in common.items()}
        for result in results:
            if skip_existing and result.is_there():
                result.skipped = True
                result.unreadable = result.still_unreadable()
                yield result
                continue
            again = skip_existing and result.is_unfinished()
            before = result.there()

            def sinks(result: Result = result, again: bool = again) -> list[Sink]:
                made = [shared.get(kind) or sink(kind, path, again) for kind, path in result.outputs.items()]
                if outputs.publish:
                    from perception.sinks.publish import PublishSink  # loads FFmpeg

                    made.append(PublishSink(outputs.publish, overwrite=overwrite, **options.get("publish", {})))
                return made if delivery is None else [*made, DeliverySink(delivery)]

            annotate_one(
                result, model, sinks, annotator=annotator, stages=stages, source_options=source_options, clips=clips,
                max_loss=max_loss, started=started,
            )  # fmt: skip
            if result.whole:
                result.mark_finished()
            elif result.live is not True and (len(results) > 1 or skip_existing or result.unreadable):
                replaced = result.live is not None and (overwrite or again)
                result.mark_unfinished(result.there() - (set() if replaced else before))
            yield result
            if result.report is not None and result.report.interrupted:
                return
