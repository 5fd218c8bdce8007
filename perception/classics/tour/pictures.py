"""The pictures of docs/classics.md, of a drawn scene or of a video: ``perception classics tour FOLDER``.

Pictures of networks that are not trained yet are left out, and the reason is given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from perception.classics.tour import layers, scene, windows
from perception.classics.tour.stop import Stop
from perception.errors import PerceptionError
from perception.sinks.files import PartFile, sink_errors
from perception.types import U8

PICTURES: dict[str, Callable[[Stop], U8]] = {
    "costs": layers.costs,
    "fields": layers.fields,
    "seen": layers.seen,
    "filters": windows.filters,
    "learning": layers.learning,
    "windows": windows.windows,
    "detector": scene.detector,
    "upsampling": layers.upsampling,
    "resolution": scene.resolution,
    "fcns": scene.fcns,
    "heat": scene.heat,
    "panoptic": scene.panoptic_view,
}
"""In the order of the page."""

COLORS = 256  # of a PNG: a palette makes it a third as large, and what is drawn needs no more


def make(folder: Path, stop: Stop, names: list[str]) -> list[PerceptionError]:
    """Make pictures, as ``folder/NAME.png``.

    Returns:
        why some could not be made.
    """
    faults = []
    for name in names:
        try:
            picture = PICTURES[name](stop)
            write(folder / f"{name}.png", picture, COLORS if stop.truth else None)
        except PerceptionError as error:
            faults.append(error)
    return faults


def write(path: Path, picture: U8, colors: int | None = None) -> None:
    """Write a picture, uint8 ``[H, W, 3]`` BGR, as a PNG; with a palette of so many colours, or with all there are.

    Raises:
        SinkError: it cannot be written.
    """
    from PIL import Image

    file = PartFile(path, overwrite=True)
    image = Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
    if colors is not None:
        image = image.quantize(colors, dither=Image.Dither.NONE)
    with file.open() as stream, sink_errors(str(path)):
        image.save(stream, "PNG", optimize=True)
    file.publish()
