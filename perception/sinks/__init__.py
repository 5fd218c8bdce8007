"""Sinks: where predictions go. ``open_sink`` chooses one by the name of the output.

with open_sink("out.mp4", overwrite=True) as sink:
    sink.open(source.info, model.card)
    for prediction in predictions:
        sink.write(prediction)
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from perception.common.settings import nearest
from perception.errors import UsageError
from perception.publishing.address import is_publish_address
from perception.sinks.base import Sink
from perception.sinks.files import STDOUT, name_of, sink_errors
from perception.sources.uri import redact

__all__ = ["PICTURES", "Sink", "open_sink"]

PICTURES = ("jpg", "jpeg", "png", "webp")
"""Endings of the names of annotated pictures."""

_SINKS = {
    "video": ("video", "VideoSink"),
    "jsonl": ("jsonl", "JsonLinesSink"),
    "coco": ("coco", "CocoSink"),
    "csv": ("csv", "CsvSink"),
    "parquet": ("parquet", "ParquetSink"),
    "masks": ("masks", "MaskSink"),
    "images": ("images", "ImageSink"),
    "pictures": ("images", "ImageSink"),  # in place of a video, where the source is images
    "panoptic": ("panoptic", "PanopticSink"),
    "picture": ("picture", "PictureSink"),
    "counts": ("counts", "CountsSink"),
    "mot": ("mot", "MotSink"),
    "summary": ("summary", "SummarySink"),
    "heatmap": ("heat_map", "HeatMapSink"),
    "trajectories": ("trajectories", "TrajectoriesSink"),
    "events": ("events", "EventsSink"),
    "publish": ("publish", "PublishSink"),
    "subtitles": ("subtitles", "SubtitlesSink"),
}
_BY_SUFFIX = {
    "mp4": "video",
    "m4v": "video",
    "mov": "video",
    "mkv": "video",
    "webm": "video",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "coco",
    "csv": "csv",
    "parquet": "parquet",
    **dict.fromkeys(PICTURES, "picture"),
}
_STREAMS = ("video", "jsonl", "csv", "counts", "mot", "summary", "events")


def open_sink(
    path: str | Path, *, kind: str | None = None, overwrite: bool = False, format: str | None = None, **options: Any
) -> Sink:
    """Open the sink for an output, by its name or its kind.

    ================  ========================  ====================  ================================================
    kind              name                      writes                options
    ================  ========================  ====================  ================================================
    ``video``         ``.mp4 .mov .mkv .webm``  annotated video       ``codec, crf, preset, threads, audio, format``
    ``jsonl``         ``.jsonl``, ``-``         JSON Lines            ``masks, timings``
    ``coco``          ``.json``                 COCO JSON             ``masks``
    ``csv``           ``.csv``                  a table
    ``parquet``       ``.parquet``              a table
    ``picture``       ``.jpg .png .webp``       one picture           ``quality``
    ``images``        ``folder/``               annotated pictures    ``format`` (``jpg``, ``png``), ``quality``
    ``masks``         only by kind              palette PNGs
    ``panoptic``      only by kind              COCO panoptic
    ``counts``        only by kind              boxes by class (CSV)
    ``mot``           only by kind              MOT text
    ``summary``       only by kind              what rules saw (CSV)
    ``heatmap``       only by kind              one picture
    ``trajectories``  only by kind              one picture
    ``events``        only by kind              JSON Lines
    ``subtitles``     only by kind              a copy with boxes
    ``publish``       ``rtsp://``, ``hls:``...  a live stream         ``codec, crf, preset, threads``
    ================  ========================  ====================  ================================================

    Args:
        path: a file; a folder, which is one that exists or whose name ends with a slash; ``-`` for standard output; or
            an address to publish to, see `perception.publishing.address`.
        kind: take this kind, whatever the name says.
        overwrite: replace what is there.
        format: of a video or of pictures, whatever the name says: a suffix without its dot.
        **options: as above; None means not given.

    Raises:
        UsageError: the kind or an option is not known, or the output is there and ``overwrite`` is False.
        SinkError: the output cannot be created there.
    """
    suffix = (format or Path(path).suffix[1:]).lower()
    if kind is None:
        kind = _kind(str(path), suffix)
    where = redact(name_of(path))
    if kind not in _SINKS:
        raise UsageError(f"unknown kind of output {kind}{nearest(kind, _SINKS)}", where)
    if str(path) == STDOUT and kind not in _STREAMS:
        raise UsageError(f"{kind} cannot be written to a pipe; give it a name", where)
    given = {name: value for name, value in options.items() if value is not None}
    if format is not None and kind in ("video", "images"):
        given["format"] = suffix
    return _make(kind, path, overwrite, given)


def _kind(path: str, suffix: str) -> str:
    """Return the kind of output that a name tells.

    Raises:
        UsageError: it tells none.
    """
    if path == STDOUT:
        return _BY_SUFFIX.get(suffix, "jsonl")
    if is_publish_address(path):
        return "publish"
    with sink_errors(path):
        is_folder = path.endswith(("/", "\\")) or Path(path).is_dir()
    if is_folder:
        return "images"
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    known = ", ".join(f".{known}" for known in _BY_SUFFIX)
    raise UsageError(f"the file extension chooses the format; use one of {known}", path)


def _make(kind: str, path: str | Path, overwrite: bool, options: dict[str, Any]) -> Sink:
    """Make a sink, whose module is imported only now, because some bring heavy libraries with them."""
    module, name = _SINKS[kind]
    sink: type[Sink] = getattr(importlib.import_module(f"perception.sinks.{module}"), name)
    known = [p for p in inspect.signature(sink).parameters if p not in ("path", "overwrite")]
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "; it has none"
            raise UsageError(f"an output of kind {kind} has no option {option}{hint}", redact(name_of(path)))
    return sink(path, overwrite=overwrite, **options)  # type: ignore[call-arg]
