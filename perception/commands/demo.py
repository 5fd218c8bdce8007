"""``perception demo``: a real street clip, annotated, with no argument and no network needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from perception.annotate import Outputs, Result, annotate_all
from perception.drawing.annotator import Annotator
from perception.errors import SourceError
from perception.model import load_model
from perception.sources.clips import find_clip
from perception.weights.library import DEFAULT_MODEL

if TYPE_CHECKING:
    from perception.commands.terminal import Reporter
    from perception.engines import Precision
    from perception.types import U8


def run_demo(
    folder: Path,
    *,
    clip: str = "auto",
    model: str | None = None,
    engine: str = "auto",
    precision: Precision = "auto",
    reporter: Reporter,
) -> Result:
    """Annotate a street clip into ``demo.mp4``, ``demo.jsonl`` and the contact sheet ``demo.png`` in ``folder``.

    Args:
        folder: where to write; files of an earlier demo there are replaced.
        clip: which clip, as in :func:`perception.sources.clips.find_clip`.
        model: name or path of a model.
        engine: engine to run it on.
        precision: precision to run it in.
        reporter: tells how it goes.

    Returns:
        what became of it.
    """
    found = find_clip(clip)
    reporter.say(f"clip: {found.name}: {found.about}")
    outputs = Outputs(video=str(folder / "demo.mp4"), jsonl=str(folder / "demo.jsonl"))
    with load_model(model or DEFAULT_MODEL, engine=engine, precision=precision, mode="throughput") as loaded:
        annotator = Annotator(loaded.card)
        (result,) = annotate_all(
            [found.uri],
            loaded,
            outputs,
            annotator=annotator,
            source_options=found.options,
            overwrite=True,
            started=reporter.started,
        )
    reporter.finished(result)
    if result.report is not None and result.report.frames:
        sheet = folder / "demo.png"
        write_contact_sheet(folder / "demo.mp4", sheet)
        result.outputs["sheet"] = str(sheet)
        reporter.say(f"contact sheet: {sheet}")
    return result


def write_contact_sheet(video: Path, path: Path, rows: int = 3, columns: int = 3, width: int = 480) -> None:
    """Write frames taken evenly from a video, in rows, as one picture.

    Args:
        video: a video file.
        path: the picture to write; its ending gives the format.
        rows, columns: how many frames.
        width: of one frame in the sheet, in pixels.

    Raises:
        SourceError: the video cannot be read.
        SinkError: the picture cannot be written.
    """
    from perception.sources import open_source

    with open_source(str(video)) as source:
        total = source.info.frame_count or 1
        wanted = {round((i + 0.5) * total / (rows * columns)) for i in range(rows * columns)}
        pictures = [_shrink(frame.image, width) for frame in source if frame.index in wanted]
    if not pictures:
        raise SourceError("no frames for a contact sheet", video)
    write_image(path, tile(pictures, columns))


def tile(pictures: Sequence[U8], columns: int, gap: int = 4) -> U8:
    """Pictures of one size in rows, on black, ``gap`` pixels apart: uint8 ``[H, W, 3]``."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def write_image(path: Path, image: U8) -> None:
    """Write a BGR picture, format by the path's ending.

    Raises:
        SinkError: the file cannot be written.
    """
    from perception.errors import SinkError

    ok, data = cv2.imencode(path.suffix, image)
    if not ok:
        raise SinkError(f"OpenCV cannot write {path.suffix} files", path)
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise SinkError(f"cannot be written: {error.strerror}", path) from None


def _shrink(image: U8, width: int) -> Any:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
