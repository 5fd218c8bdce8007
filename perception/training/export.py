"""From a checkpoint to one ``.onnx`` file with its card inside."""

from __future__ import annotations

import os
import tempfile
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from perception.card import DetectionTask, InputSpec, ModelCard, SegmentationTask, write_card
from perception.errors import ModelError
from perception.networks.camera import CameraGraph
from perception.networks.fcn import FCN
from perception.networks.segmenter import StreetNetwork
from perception.training.build import build_network
from perception.training.checkpoint import load_checkpoint, load_weights
from perception.training.config import TrainConfig

OPSET = 17  # the oldest with all that is used here: the more runtimes read it
MULTIPLE = 4  # sizes the exported graph takes: folding the stride-2 map was traced for even ones
TOLERANCE = 1e-3  # of the largest value of an output


def export(checkpoint: str | Path, output: str | Path, metrics: dict[str, float] | None = None) -> ModelCard:
    """Export the averaged network of ``checkpoint`` and check the file against torch with ONNX Runtime.

    Args:
        checkpoint: written by ``train``.
        output: the ``.onnx`` to write; appears whole or not at all.
        metrics: measured accuracy for the card.

    Returns:
        The card that the file carries.

    Raises:
        PerceptionError: The checkpoint cannot be read, or the file does not compute what torch computes.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    state = load_checkpoint(checkpoint)
    config = TrainConfig.model_validate(state["config"])
    network = build_network(config)
    load_weights(network, state["average"], checkpoint)
    card = make_card(config, metrics or {})
    export_network(network, card, output)
    return card


def make_card(config: TrainConfig, metrics: dict[str, float]) -> ModelCard:
    """The card of a model trained by ``config``."""
    detection = config.detection
    return ModelCard(
        name=config.name,
        version=config.model.version,
        description=config.model.description,
        input=InputSpec(width=config.data.size[0], height=config.data.size[1], resize="stretch", multiple=MULTIPLE),
        segmentation=SegmentationTask(output="class_logits", classes=config.data.classes),
        detection=None
        if detection is None
        else DetectionTask(
            boxes="boxes",
            scores="scores",
            classes=detection.classes,
            score_threshold=detection.score_threshold,
            iou_threshold=detection.iou_threshold,
            max_detections=300,
        ),
        licence=config.model.licence,
        trained_on=config.model.trained_on,
        metrics=metrics,
        date=date.today().isoformat(),
    )


def export_network(network: StreetNetwork | FCN, card: ModelCard, output: Path) -> None:
    """Write ``network`` (whose first convolution is changed by this) with ``card`` to ``output``.

    Batch norms are folded into the convolutions, batch and picture size stay free.
    """
    graph = CameraGraph(network, network.first_convolution, network.outputs).eval()
    width, height = card.input.width, card.input.height
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        draft = Path(folder) / output.name
        _to_onnx(graph, frames, draft)
        model = onnx.load(str(draft))
        write_card(model, card)
        onnx.checker.check_model(model)
        onnx.save(model, str(draft))
        check_export(graph, draft)
        os.replace(draft, output)  # noqa: PTH105 - the one call that is atomic on every system


def check_export(graph: CameraGraph, path: Path) -> None:
    """Compare the file at ``path`` with torch on random frames of three sizes.

    Raises:
        ModelError: An output differs by more than ``TOLERANCE`` of its largest value.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for batch, height, width in ((1, 68, 100), (3, 64, 96), (1, 360, 480)):
        frames = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
        results = session.run(list(graph.outputs), {"frames": frames})
        with torch.inference_mode():
            expected = graph(torch.from_numpy(frames))
        for name, result, reference in zip(graph.outputs, results, expected, strict=True):
            truth = reference.numpy()
            error = float(np.abs(result - truth).max()) if result.shape == truth.shape else np.inf
            if not error <= TOLERANCE * max(1.0, float(np.abs(truth).max())):
                raise ModelError(
                    f"{name} of the export differs from torch by {error:.2g} on {batch}x{height}x{width} frames "
                    f"(shapes {result.shape} and {truth.shape})",
                    path,
                )


def _to_onnx(graph: CameraGraph, frames: torch.Tensor, path: Path) -> None:
    axes: dict[str, Any] = {
        "frames": {0: "batch", 1: "height", 2: "width"},
        "class_logits": {0: "batch", 2: "class_logits_height", 3: "class_logits_width"},
        "boxes": {0: "batch", 1: "locations"},
        "scores": {0: "batch", 1: "locations"},
    }
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
