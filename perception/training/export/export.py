"""From a checkpoint to one ``.onnx`` file with its card inside."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from perception.card import ModelCard
from perception.errors import ModelError
from perception.networks.camera import CameraGraph
from perception.training.export.onnx_file import write_onnx
from perception.training.recipes.base import RunConfig
from perception.training.recipes.read import parse_config
from perception.training.tasks.kinds import build_network, task_type
from perception.training.weights.checkpoint import load_checkpoint, load_weights

TOLERANCE = 1e-3  # of the largest value of an output


def export(
    checkpoint: str | Path,
    output: str | Path,
    metrics: dict[str, float] | None = None,
    config: RunConfig | None = None,
) -> ModelCard:
    """Export the averaged network of ``checkpoint`` and check the file against torch with ONNX Runtime.

    Args:
        checkpoint: written by ``train``.
        output: the ``.onnx`` to write; appears whole or not at all.
        metrics: measured accuracy for the card.
        config: the recipe, where not the checkpoint's own: what the card says may have changed since.

    Returns:
        The card that the file carries.

    Raises:
        PerceptionError: The checkpoint cannot be read, or the file does not compute what torch computes.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    state = load_checkpoint(checkpoint)
    config = config or parse_config(state["config"], checkpoint)
    task = task_type(config)
    network = build_network(config)
    load_weights(network, state["average"], checkpoint)
    card = task.card(config, metrics or {})
    export_network(task.deployed(config, network), card, output)
    return card


def export_network(network: nn.Module, card: ModelCard, output: Path) -> None:
    """Write ``network`` (whose first convolution is changed by this) with ``card`` to ``output``.

    Raises:
        ModelError: The file does not compute what torch computes.
        UsageError: The output is a folder.
        SinkError: It cannot be written.
    """
    outputs = cast("tuple[str, ...]", network.outputs)
    graph = CameraGraph(network, cast("nn.Conv2d", network.first_convolution), outputs).eval()
    size = None if card.input.multiple else (card.input.width, card.input.height)
    write_onnx(graph, card, output, lambda draft: check_export(graph, draft, size))


def check_export(graph: CameraGraph, path: Path, size: tuple[int, int] | None = None) -> None:
    """Compare the file at ``path`` with torch on random frames: of ``size`` (width, height), or of three sizes.

    Raises:
        ModelError: An output differs by more than ``TOLERANCE`` of its largest value.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    several = ((1, 68, 100), (3, 64, 96), (1, 360, 480))
    for batch, height, width in several if size is None else ((1, *size[::-1]), (3, *size[::-1])):
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
