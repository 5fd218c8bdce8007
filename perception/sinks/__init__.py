"""Sinks: where predictions go. ``open_sink`` chooses one by the name of the output.

with open_sink("out.mp4", overwrite=True) as sink:
    sink.open(source.info, model.card)
    for prediction in predictions:
        sink.write(prediction)
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from pathlib import Path
from typing import Any

from perception.errors import UsageError
from perception.sinks.base import Sink
from perception.sinks.files import STDOUT, name_of

__all__ = ["Sink", "open_mask_sink", "open_sink"]

_VIDEO = ("video", "VideoSink")
_BY_FORMAT = {
    "mp4": _VIDEO,
    "m4v": _VIDEO,
    "mov": _VIDEO,
    "mkv": _VIDEO,
    "webm": _VIDEO,
    "jsonl": ("jsonl", "JsonLinesSink"),
    "ndjson": ("jsonl", "JsonLinesSink"),
    "json": ("coco", "CocoSink"),
    "csv": ("csv", "CsvSink"),
    "parquet": ("parquet", "ParquetSink"),
}
_TO_STDOUT = ("jsonl", "ndjson", "csv", *(f for f, kind in _BY_FORMAT.items() if kind is _VIDEO))
_PICTURES = ("jpg", "jpeg", "png")


def open_sink(path: str | Path, *, overwrite: bool = False, format: str | None = None, **options: Any) -> Sink:
    """The sink for an output, by its name.

    ==============================  ==========================================================================
    ``.mp4 .mov .mkv .webm``        annotated video; options ``codec``, ``crf``, ``preset``, ``threads``, ``audio``
    ``.jsonl``, ``-``               JSON Lines; option ``masks``
    ``.json``                       COCO JSON; option ``masks``
    ``.csv``, ``.parquet``          a table
    ``folder/``                     annotated pictures; options ``format`` (``jpg``, ``png``), ``quality``
    ==============================  ==========================================================================

    Args:
        path: a file; a folder, which is one that exists or whose name ends with a slash; or ``-`` for standard output.
        overwrite: replace what is there.
        format: take this format, whatever the name says: a suffix without its dot.
        **options: as above; None means not given.

    Raises:
        UsageError: the format or an option is not known, or the output is there and ``overwrite`` is False.
        SinkError: the output cannot be created there.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if str(path) != STDOUT and (str(path).endswith(("/", "\\")) or Path(path).is_dir()):
        if format is not None:
            given["format"] = format
        return _make("images", "ImageSink", path, overwrite, given)
    kind = (format or ("jsonl" if str(path) == STDOUT else Path(path).suffix[1:])).lower()
    if kind not in _BY_FORMAT:
        known = ", ".join(f".{f}" for f in _BY_FORMAT)
        hint = "; for pictures give a folder: a name that ends with a slash" if kind in _PICTURES else ""
        raise UsageError(f"what to write is told by the suffix, one of {known}{hint}", name_of(path))
    if str(path) == STDOUT and kind not in _TO_STDOUT:
        raise UsageError(f"{kind} cannot be written to a pipe; give it a file", name_of(path))
    module, sink = _BY_FORMAT[kind]
    if module == "video":
        given["format"] = kind
    return _make(module, sink, path, overwrite, given)


def open_mask_sink(path: str | Path, *, overwrite: bool = False) -> Sink:
    """The sink for class masks: a folder of palette PNGs.

    Raises:
        UsageError: the folder has PNGs and ``overwrite`` is False.
        SinkError: the place is not writable.
    """
    return _make("masks", "MaskSink", path, overwrite, {})


def _make(module: str, name: str, path: str | Path, overwrite: bool, options: dict[str, Any]) -> Sink:
    """Make a sink, whose module is imported only now, because some bring heavy libraries with them."""
    sink: type[Sink] = getattr(importlib.import_module(f"perception.sinks.{module}"), name)
    known = [p for p in inspect.signature(sink).parameters if p not in ("path", "overwrite")]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known) or 'none'}"
            raise UsageError(f"this kind of output has no option {option}{hint}", name_of(path))
    return sink(path, overwrite=overwrite, **options)  # type: ignore[call-arg]
