"""Sensitivity of layers: the part of each in the error of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from perception.quantize.graph import quantised_layers, with_float_layers
from perception.types import U8

Outputs = list[NDArray[np.float32]]


def rank_layers(
    quantised: onnx.ModelProto,
    original: onnx.ModelProto,
    pictures: Sequence[U8],
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[str, float]]:
    """Layers of a quantised graph, the most harmful first.

    A layer's harm is how much smaller the error of the outputs becomes when that layer alone computes in float again:
    what it does to the result, with all that the layers after it make of it.

    Args:
        quantised, original: the graph with and without Q/DQ nodes, of the same names.
        pictures: a few, uint8 ``[1, H, W, 3]``.
        progress: called with (layers tried, all layers).

    Returns:
        Names and harms; the error is relative to the variance of each output, averaged over outputs and pictures.
    """
    truth = _run(original, pictures)
    whole = _error(_run(quantised, pictures), truth)
    layers = quantised_layers(quantised)
    harms = []
    for done, layer in enumerate(layers, 1):
        harms.append((layer, whole - _error(_run(with_float_layers(quantised, original, [layer]), pictures), truth)))
        if progress is not None:
            progress(done, len(layers))
    return sorted(harms, key=lambda pair: -pair[1])


def _run(model: onnx.ModelProto, pictures: Sequence[U8]) -> list[Outputs]:
    """Compute the outputs for each picture. The graph is in memory only, which ONNX Runtime loads quickly."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: picture}) for picture in pictures]


def _error(results: list[Outputs], truth: list[Outputs]) -> float:
    errors = [
        float(np.square(got - wanted).mean() / max(float(wanted.var()), 1e-12))
        for outputs, expected in zip(results, truth, strict=True)
        for got, wanted in zip(outputs, expected, strict=True)
    ]
    return float(np.mean(errors))
