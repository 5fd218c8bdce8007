"""Scales, zero points and rounding, computed again from the numbers in the file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from perception.errors import ModelError, SourceError, UsageError
from perception.quantize.graph import tidied
from perception.quantize.post_training import post_training_quantised
from tests.models import build_model
from tests.noise import noise_frames
from tests.quantize.networks import write_deep

Weights = dict[str, np.ndarray]


PICTURES = [noise_frames(1, seed=seed) for seed in range(4)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return tidied(onnx.load(str(write_deep(tmp_path_factory.mktemp("post") / "deep.onnx"))))


@pytest.fixture(scope="module")
def quantised(original: onnx.ModelProto) -> onnx.ModelProto:
    return post_training_quantised(original, "frames", PICTURES)


@pytest.fixture(scope="module")
def weights(quantised: onnx.ModelProto) -> Weights:
    return {w.name: numpy_helper.to_array(w) for w in quantised.graph.initializer}


def run(model: onnx.ModelProto, picture: np.ndarray, output: str) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], {"frames": picture})[0]


def producer(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if tensor in n.output)


def test_every_zero_point_is_zero_and_every_activation_has_one_scale(
    quantised: onnx.ModelProto, weights: Weights
) -> None:
    pairs = [n for n in quantised.graph.node if n.op_type.endswith("Linear")]
    assert pairs
    for node in pairs:
        assert not weights[node.input[2]].any()
        if node.op_type == "QuantizeLinear":
            assert weights[node.input[1]].size == 1
            assert weights[node.input[2]].dtype in (np.int8, np.uint8)


@pytest.mark.parametrize("layer", ["spread", "mix", "depth", "decide"])
def test_weights_are_int8_with_a_scale_for_each_channel(
    layer: str, original: onnx.ModelProto, quantised: onnx.ModelProto, weights: Weights
) -> None:
    node = next(n for n in quantised.graph.node if n.name == layer)
    pair = producer(quantised, node.input[1])
    assert pair.op_type == "DequantizeLinear"
    values, scales = weights[pair.input[0]], weights[pair.input[1]]
    exact = next(numpy_helper.to_array(w) for w in original.graph.initializer if w.name == f"{layer}_w")
    assert values.dtype == np.int8 and values.shape == exact.shape
    assert scales.shape == (len(exact),)
    largest = np.abs(exact).reshape(len(exact), -1).max(1)
    used = largest > 0
    # a step is a 127th or a 128th of the channel's largest weight; the first layer uses half of the range, for the
    # sake of CPUs that add two products of eight bits in sixteen
    np.testing.assert_allclose(scales[used], largest[used] / (63.5 if layer == "spread" else 127), rtol=0.02)
    rounded = values * scales[:, None, None, None]
    assert (np.abs(rounded - exact) <= 0.51 * scales[:, None, None, None] + 1e-9).all()


def test_ranges_are_those_of_the_calibration_pictures(
    original: onnx.ModelProto, quantised: onnx.ModelProto, weights: Weights
) -> None:
    """``spread_a`` is never negative, so all 255 steps are above zero, up to the mean of the pictures' maxima."""
    shown = onnx.ModelProto()
    shown.CopyFrom(original)
    shown.graph.output.append(helper.make_tensor_value_info("spread_a", onnx.TensorProto.FLOAT, None))
    highest = [ReferenceEvaluator(shown).run(["spread_a"], {"frames": p})[0].max() for p in PICTURES]
    pair = next(n for n in quantised.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "spread_a")
    assert weights[pair.input[2]].dtype == np.uint8
    scale = float(weights[pair.input[1]])
    assert min(highest) / 255 * 0.98 <= scale <= max(highest) / 255 * 1.02


def test_results_are_close(original: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    for seed in range(10, 13):  # pictures that were not calibrated on
        exact, rough = (run(model, noise_frames(1, seed=seed), "class_logits") for model in (original, quantised))
        assert 0 < np.abs(rough - exact).mean() < 0.03 * np.ptp(exact)


def test_decoding_of_boxes_stays_in_float() -> None:
    model = tidied(build_model(detection=True, classification=True))
    made = post_training_quantised(model, "frames", PICTURES)
    before = {n.name: list(n.input) for n in model.graph.node}
    changed = {n.op_type for n in made.graph.node if n.name in before and list(n.input) != before[n.name]}
    assert changed <= {"Conv", "Add", "Mul"}
    for name in ("Sigmoid", "Reshape", "Concat", "Softmax"):
        assert name not in changed
    np.testing.assert_array_equal(run(model, PICTURES[0], "boxes"), run(made, PICTURES[0], "boxes"))


def test_progress_counts_pictures(original: onnx.ModelProto) -> None:
    told: list[tuple[int, int]] = []
    post_training_quantised(original, "frames", PICTURES, lambda *step: told.append(step))
    assert set(told) >= {(i, 4) for i in range(1, 5)}


def test_what_cannot_be_quantised_is_said(tmp_path: Path, quantised: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="already quantised"):
        post_training_quantised(quantised, "frames", PICTURES)
    old = onnx.load(str(write_deep(tmp_path / "old.onnx", opset=12)))
    with pytest.raises(ModelError, match="opset 12"):
        post_training_quantised(tidied(old), "frames", PICTURES)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "none",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    with pytest.raises(UsageError, match="no convolution"):
        post_training_quantised(tidied(helper.make_model(graph)), "x", PICTURES)


def test_a_picture_that_cannot_be_read_ends_it_with_its_own_error(original: onnx.ModelProto) -> None:
    class Broken(Sequence[np.ndarray]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index):  # type: ignore[no-untyped-def, override]
            raise SourceError("corrupt image", "one.jpg")

    with pytest.raises(SourceError, match=r"one\.jpg: corrupt image"):
        post_training_quantised(original, "frames", Broken())


SCRIPT = """
import logging, sys
before = logging.getLoggerClass()
import numpy as np, onnx
from perception.quantize.graph import tidied
from perception.quantize.post_training import post_training_quantised
model = tidied(onnx.load(sys.argv[1]))
post_training_quantised(model, "frames", [np.zeros((1, 48, 64, 3), np.uint8)])
from nncf.telemetry import telemetry
from nncf.telemetry.wrapper import NNCFTelemetryStub
assert isinstance(telemetry, NNCFTelemetryStub), telemetry
assert logging.getLoggerClass() is before
"""


@pytest.mark.timeout(600)
def test_nncf_reports_to_nobody_and_prints_nothing(tmp_path: Path) -> None:
    path = write_deep(tmp_path / "deep.onnx")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NNCF") and not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], env=environment, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
