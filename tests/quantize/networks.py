"""Networks small enough to quantise in a test, some made so that eight bits hurt in a known place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.card import validate_card, write_card
from tests.models import PALETTE

NAMES = list(PALETTE)[:3]


def write_deep(path: Path, *, outlier: float = 0.0, opset: int = 17, width: int = 64, height: int = 48) -> Path:
    """Classes by nearest colour, stride 4, by a chain of products named ``spread``, ``mix``, ``depth``, ``decide``.

    ``spread`` makes 8 channels, of which ``mix`` (3x3) and ``depth`` (depthwise) blur 4 a little; ``decide`` tells the
    classes from these.

    Args:
        path: where to write it.
        outlier: how large the eighth channel of ``spread`` is. Nobody reads it, but the range of values that eight bits
            must span is its own: with thousands, the steps swallow the other channels and ``mix`` is blind.
        opset: of ONNX.
        width, height: of the input.
    """
    rng = np.random.default_rng(0)
    colors = np.array([PALETTE[n][::-1] for n in NAMES], np.float32) / 255  # BGR
    spread = np.zeros((8, 3, 1, 1), np.float32)
    spread[:3, :, 0, 0] = np.eye(3)
    spread[3:7, :, 0, 0] = rng.uniform(0, 0.3, (4, 3))
    spread[7] = outlier / 3
    mix = np.zeros((8, 8, 3, 3), np.float32)
    mix[:7, :7, 1, 1] = np.eye(7)
    mix[:7, :7] += rng.normal(0, 0.003, (7, 7, 3, 3))
    depth = np.zeros((8, 1, 3, 3), np.float32)
    depth[:, :, 1, 1] = rng.uniform(0.5, 2, (8, 1))
    decide = np.zeros((3, 8, 1, 1), np.float32)
    decide[:, :3, 0, 0] = 8 * colors / depth[:3, 0, 1, 1]
    constants = {
        "spread_w": spread, "spread_b": np.full(8, 0.05, np.float32), "mix_w": mix, "mix_b": np.zeros(8, np.float32),
        "depth_w": depth, "depth_b": np.zeros(8, np.float32), "decide_w": decide,
        "decide_b": (-4 * (colors**2).sum(1) - 8 * 0.05 * colors.sum(1)).astype(np.float32),
        "full": np.float32(255), "zero": np.float32(0), "much": np.float32(1e6), "six": np.float32(6),
    }  # fmt: skip
    nodes = [
        _node("Cast", "frames", "float_frames", to=TensorProto.FLOAT),
        _node("Transpose", "float_frames", "planes", perm=[0, 3, 1, 2]),
        _node("Div", "planes full", "unit"),
        _node("AveragePool", "unit", "cells", kernel_shape=[4, 4], strides=[4, 4]),
        _node("Conv", "cells spread_w spread_b", "spread"),
        _node("Clip", "spread zero much", "spread_a"),
        _node("Conv", "spread_a mix_w mix_b", "mix", pads=[1] * 4),
        _node("Clip", "mix zero six", "mix_a"),
        _node("Conv", "mix_a depth_w depth_b", "depth", pads=[1] * 4, group=8),
        _node("Clip", "depth zero six", "depth_a"),
        _node("Conv", "depth_a decide_w decide_b", "decide"),
        _node("Cast", "decide", "class_logits", to=TensorProto.FLOAT),  # of no effect, as exporters write it
    ]
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", height, width, 3])],
        [helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, ["N", 3, height // 4, width // 4])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    data: dict[str, Any] = {"name": "deep", "licence": "MIT", "input": {"width": width, "height": height}}
    data["segmentation"] = {"classes": [{"name": n, "color": PALETTE[n]} for n in NAMES]}
    write_card(model, validate_card(data, path))
    onnx.save(model, str(path))
    return path


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    name = "" if kind == "Clip" else output  # exporters do not name every node
    return helper.make_node(kind, inputs.split(), [output], name=name, **attributes)
