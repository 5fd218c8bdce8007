"""Writing a network with its card as an ``.onnx`` file."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch

from perception.card import ModelCard, write_card
from perception.networks.camera import CameraGraph
from perception.sinks.files import check_output, sink_errors

OPSET = 17  # the oldest with all that is used here: the more runtimes read it


def write_onnx(graph: CameraGraph, card: ModelCard, output: Path, check: Callable[[Path], None]) -> None:
    """Write ``graph`` with ``card`` to ``output``, whole or not at all.

    Batch norms are folded into the convolutions; the batch stays free, and the picture's size where the card says so.

    Args:
        graph: in evaluation mode.
        card: of the model.
        output: the file; what is there is replaced.
        check: called with a draft of the file; raises where that does not compute what the network computes.

    Raises:
        UsageError: The output is a folder.
        SinkError: It cannot be written.
    """
    check_output(output, overwrite=True)
    with sink_errors(str(output)):
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            draft = Path(folder) / output.name
            _trace(graph, card, draft)
            model = onnx.load(str(draft))
            write_card(model, card)
            onnx.checker.check_model(model)
            onnx.save(model, str(draft))
            check(draft)
            os.replace(draft, output)  # noqa: PTH105 - the one call that is atomic on every system


def _trace(graph: CameraGraph, card: ModelCard, path: Path) -> None:
    axes: dict[str, Any] = {
        "frames": {0: "batch", 1: "height", 2: "width"},
        "class_logits": {0: "batch", 2: "class_logits_height", 3: "class_logits_width"},
        "boxes": {0: "batch", 1: "locations"},
        "scores": {0: "batch", 1: "locations"},
        "probabilities": {0: "batch"},
    }
    if card.input.multiple is None:
        axes = {name: {0: "batch"} for name in axes}
    generator = torch.Generator().manual_seed(0)
    size = (2, card.input.height, card.input.width, 3)
    frames = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    with warnings.catch_warnings(), torch.inference_mode():
        # The tracing exporter is deprecated, but it alone folds batch norms and needs no guards for free sizes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (frames,),
            str(path),
            input_names=["frames"],
            output_names=list(graph.outputs),
            dynamic_axes={name: axes[name] for name in ("frames", *graph.outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
