"""The command ``perception eval smoothing``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from perception.commands.inputs import MaxFrames
from perception.commands.labelled_video import Ignore, Images, Labels, Sources, check_inputs, labelled_folder
from perception.commands.options import INPUT, MODEL, Card, Json, JsonFile, Model, Running, runs_a_model
from perception.weights import DEFAULT_MODEL


@runs_a_model
def eval_smoothing(
    running: Running,
    sources: Sources = None,
    images: Images = None,
    labels: Labels = None,
    ignore: Ignore = None,
    start: Annotated[float, typer.Option(min=0, help="Start at this second.", rich_help_panel=INPUT)] = 0.0,
    every: Annotated[int, typer.Option(min=1, help="Read every N-th frame.", rich_help_panel=INPUT)] = 1,
    max_frames: MaxFrames = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Time constant of the average.", rich_help_panel=MODEL)
    ] = 0.1,
    model: Model = DEFAULT_MODEL,
    card: Card = None,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Measure what smoothing masks in time does: pixels that change class, mean IoU where the truth is known.

    [bold]Examples[/bold]

      perception eval smoothing street.mp4 'synthetic:?size=1280x720&frames=100'

      perception eval smoothing --images val/images --labels val/labels --ignore 11
    """
    from perception.commands.terminal import write_json
    from perception.common.console import print_rows
    from perception.evaluation.labelling import matched_labelling, own_labelling
    from perception.evaluation.result import load_for
    from perception.evaluation.smoothing import SmoothingResult, measure_labelled, measure_smoothing
    from perception.sources import open_source
    from perception.sources.synthetic.source import CLASSES, SyntheticSource

    check_inputs(sources, images, labels, ignore)
    found: list[SmoothingResult] = []
    with load_for("segmentation", model, card=card, **running.options()) as loaded:
        task = loaded.card.segmentation
        assert task is not None
        for uri in sources or ():
            with open_source(uri, start=start, every=every, max_frames=max_frames) as source:
                known: dict[str, Any] = {}
                if isinstance(source, SyntheticSource):
                    street = source
                    known["truth"] = lambda frame: street.truth(frame.pts or 0)[1]  # noqa: B023 - called at once
                    known["labelling"] = matched_labelling(task, dict(enumerate(CLASSES)))
                found.append(measure_smoothing(loaded, [source], uri, seconds, **known))
        folder = labelled_folder(images, labels, task, ignore)
        if folder is not None:
            found.append(measure_labelled(loaded, folder, own_labelling(task, ignore or ()), seconds))
    rows = [one.as_dict() for one in found]
    if not write_json(rows, as_json, json_file):
        print_rows("smoothing", [_readable(row) for row in rows])


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    made = {"source": row["source"], "frames": row["frames"]}
    for name in ("changed", "flickered", "miou"):
        pair = [row[name], row[f"{name}_smoothed"]]
        made[name] = "-" if None in pair else " → ".join(f"{v:.4f}" if name == "miou" else f"{v:.3%}" for v in pair)
    return {**made, "ms a frame": round(row["ms"], 2)}
