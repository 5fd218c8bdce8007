"""The command ``perception eval propagation``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from perception.commands.inputs import MaxFrames
from perception.commands.labelled_video import Ignore, Images, Labels, Sources, check_inputs, labelled_folder
from perception.commands.options import MODEL, Card, Json, JsonFile, Model, Running, runs_a_model
from perception.weights import DEFAULT_MODEL


@runs_a_model
def eval_propagation(
    running: Running,
    sources: Sources = None,
    images: Images = None,
    labels: Labels = None,
    ignore: Ignore = None,
    max_frames: MaxFrames = None,
    max_loss: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Mean loss that is accepted.", rich_help_panel=MODEL)
    ] = 0.01,
    model: Model = DEFAULT_MODEL,
    card: Card = None,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Measure what is lost where the network sees only some of the frames (`annotate --every auto`).

    Mean IoU and AP50 with the truth where that is known, every frame seen and propagated; and the part of all pixels
    that are of another class than the network says of the same frame.

    [bold]Examples[/bold]

      perception eval propagation drive.mp4 'synthetic:?size=1280x720&frames=300'

      perception eval propagation --images val/images --labels val/labels --ignore 11 --max-loss 0.02
    """
    from perception.commands.terminal import write_json
    from perception.common.console import print_rows
    from perception.evaluation.labelling import matched_labelling, own_labelling
    from perception.evaluation.propagation import (
        PropagationResult,
        measure_labelled_propagation,
        measure_propagation,
    )
    from perception.evaluation.result import load_for
    from perception.sources import open_source
    from perception.sources.synthetic.source import CLASSES, SyntheticSource

    check_inputs(sources, images, labels, ignore)
    found: list[PropagationResult] = []
    with load_for("segmentation", model, card=card, **running.options()) as loaded:
        task, boxes = loaded.card.segmentation, loaded.card.detection
        assert task is not None
        for uri in sources or ():
            with open_source(uri, max_frames=max_frames) as source:
                known: dict[str, Any] = {}
                if isinstance(source, SyntheticSource):
                    street = source
                    known["truth"] = lambda frame: street.truth(frame.pts or 0)  # noqa: B023 - called at once
                    known["labelling"] = matched_labelling(task, dict(enumerate(CLASSES)))
                    names = [] if boxes is None else boxes.names
                    there = {"car": "car", "pedestrian": "person", "bicyclist": "bicycle"}
                    known["classes"] = {
                        CLASSES.index(name): names.index(own) for name, own in there.items() if own in names
                    } or None
                found.append(measure_propagation(loaded, [source], uri, max_loss, **known))
        folder = labelled_folder(images, labels, task, ignore)
        if folder is not None:
            found.append(measure_labelled_propagation(loaded, folder, own_labelling(task, ignore or ()), max_loss))
    rows = [one.as_dict() for one in found]
    if not write_json(rows, as_json, json_file):
        print_rows(f"propagation, loss at most {max_loss:g}", [_readable(row) for row in rows])


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {name: row[name] for name in ("source", "frames")}
    made["seen"] = f"{row['seen']:.1%}"
    for name, title in (("miou", "mIoU"), ("ap50", "AP50")):
        pair = [row[name], row[f"{name}_propagated"]]
        made[title] = "-" if None in pair else " → ".join(f"{value:.4f}" for value in pair)
    if row["miou"] is not None:
        made["judged on propagated"] = f"{row['judged']:.0%}"
    return {**made, "other pixels": f"{row['other']:.2%}"}
