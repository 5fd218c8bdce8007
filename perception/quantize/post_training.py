"""Post-training quantisation by NNCF: ranges from pictures, eight bits, biases corrected for what rounding adds."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import onnx

from perception.common.distribution import require
from perception.common.telemetry import import_openvino
from perception.errors import ModelError, PerceptionError, UsageError
from perception.quantize.graph import PRODUCTS, is_quantised, outside_products
from perception.types import U8

LEAST_OPSET = 13
"""Older graphs cannot have a scale for each channel, and depthwise convolutions are nothing without that."""


def post_training_quantised(
    model: onnx.ModelProto, name: str, pictures: Sequence[U8], progress: Callable[[int, int], None] | None = None
) -> onnx.ModelProto:
    """Insert Q/DQ nodes: weights int8 with a scale for each channel, activations with one for each tensor.

    Activations that are never negative are uint8, others int8, both with a zero point of 0: what CPUs compute in at
    once, and what `perception.engines.trt` turns into TensorRT's int8. Nodes and tensors keep their names.

    Args:
        model: a tidied graph, see `perception.quantize.graph.tidied`. It is not changed.
        name: the graph's input.
        pictures: what is calibrated on, uint8 ``[1, H, W, 3]`` each.
        progress: called with (pictures seen, all pictures).

    Raises:
        UsageError: NNCF or ONNX Runtime is not installed; the graph is quantised already, or has nothing to quantise.
        ModelError: a graph of an old opset, or one that NNCF refuses.
    """
    require("nncf", "quantize", "quantisation")
    require("onnxruntime", "quantize", "quantisation")
    if is_quantised(model):
        raise UsageError("this model is already quantised; use the one it was made from")
    if not any(node.op_type in PRODUCTS for node in model.graph.node):
        raise UsageError("this model has no convolution and no matrix product, so there is nothing to quantise")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        raise ModelError(f"this model is of ONNX opset {opset}; export it again with opset {LEAST_OPSET} or later")
    nncf = _import_nncf()
    from nncf.quantization.advanced_parameters import QuantizationParameters

    seen = 0

    def feed(picture: U8) -> dict[str, U8]:
        nonlocal seen
        seen += 1
        if progress is not None:
            progress(min(seen, len(pictures)), len(pictures))
        return {name: picture}

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        # its progress bars go to standard output, which is for results
        with contextlib.redirect_stdout(io.StringIO()):
            quantised: onnx.ModelProto = nncf.quantize(
                copy,
                nncf.Dataset(pictures, feed),
                preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric, so that every zero point is 0
                subset_size=len(pictures),
                ignored_scope=nncf.IgnoredScope(names=outside_products(model), validate=False),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    # before depthwise convolutions NNCF likes one for each channel, which TensorRT does not take
                    activations_quantization_params=QuantizationParameters(per_channel=False)
                ),
            )
    except PerceptionError:  # a picture that cannot be read
        raise
    except Exception as error:  # whatever it meets in a graph that it does not know
        said = str(error).splitlines() or [type(error).__name__]
        raise ModelError(f"NNCF cannot quantise this graph: {said[0]}") from error
    if not is_quantised(quantised):
        raise ModelError("NNCF found nothing in this graph that it could quantise")
    return quantised


def tool() -> str:
    """Return the name and version of the library that quantises."""
    return f"NNCF {version('nncf')}"


def _import_nncf() -> Any:
    # NNCF reports every use of it to its makers unless it believes to be under test; nobody was asked about that here.
    os.environ.setdefault("NNCF_CI", "1")
    logger_class = logging.getLoggerClass()
    try:
        with contextlib.suppress(ImportError):
            import_openvino()  # or NNCF does, in its own way
        import nncf
    finally:
        logging.setLoggerClass(logger_class)  # it puts its own one into everybody's way
    # not nncf.set_log_level, which also sets every handler that others have put there, such as one that catches logs
    logging.getLogger("nncf").setLevel(logging.ERROR)
    # it looks at torch where there is one, and torch then complains of a CUDA that nobody asked for
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    return nncf
