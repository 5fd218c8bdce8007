"""The work of `perception explain`: a picture in, a picture with its saliency map out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2

from perception.errors import SourceError, UsageError
from perception.explain.maps import METHODS, Method, explain
from perception.explain.tiles import side_by_side
from perception.sinks.files import PartFile, check_not_source, sink_errors
from perception.sources import open_source

SUFFIXES = (".png", ".jpg", ".jpeg")


def write_explanations(
    model: str | Path,
    image: str,
    output: Path,
    *,
    method: str = "smoothgrad",
    class_name: str | None = None,
    at: str | None = None,
    task: str | None = None,
    card: str | Path | None = None,
    overwrite: bool = False,
) -> Iterator[str]:
    """Explain the first frame of ``image`` and write what mattered to ``output``.

    Args:
        model, class_name, task, card: see `perception.explain.maps.explain`.
        image: what `open_source` takes.
        output: a ``.png`` or ``.jpg``.
        method: of `METHODS`, or ``all``, side by side.
        at: a point, as ``X,Y`` in pixels of the picture.
        overwrite: replace ``output`` where it exists.

    Yields:
        A line for each map: what it explains.

    Raises:
        UsageError: a point that is none, or an output of another kind; and what `explain` raises.
        SourceError: the image cannot be read.
        SinkError: the output cannot be written.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the output must be a {' or '.join(SUFFIXES)} file", output)
    point = None if at is None else _point(at)
    file = PartFile(output, overwrite)
    check_not_source(output, image)
    with open_source(image) as source:
        frame = next(iter(source), None)
    if frame is None:
        raise SourceError("has no frame", image)
    pictures = []
    for name in METHODS if method == "all" else [cast(Method, method)]:
        made = explain(model, frame, method=name, class_name=class_name, at=point, task=task, card=card)
        pictures.append(made)
        yield f"{name}: {made.what}"
    whole = (
        pictures[0].picture()
        if len(pictures) == 1
        else side_by_side([("image", pictures[0].image), *((e.method, e.picture()) for e in pictures)])
    )
    _, data = cv2.imencode(output.suffix.lower(), whole)
    with file.open() as stream, sink_errors(str(output)):
        stream.write(data.tobytes())
    file.publish()
    yield str(output)


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"a point is X,Y in pixels, such as 120,80, not {text!r}") from None
    return x, y
