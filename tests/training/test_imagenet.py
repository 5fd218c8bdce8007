"""The ``imagenet`` model that ships, and weights stored in half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

import perception
from perception.card import load_onnx
from perception.networks.lite import EfficientNetLite
from perception.training.export.imagenet import SIDE
from perception.training.weights.half_weights import LEAST_VALUES, store_in_half
from perception.weights.library import find_model, model_paths
from tests.engines.trt_models import mixed_network


def squares(seed: int, size: int = 7, side: int = SIDE) -> np.ndarray:
    """uint8 ``[side, side, 3]``: coloured squares, of which a network sees more than of noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (size, size, 3), np.uint8).repeat(side // size, 0).repeat(side // size, 1)


def test_the_shipped_model_is_the_published_network() -> None:
    network = EfficientNetLite(classes=1000).eval()
    network.load_imagenet()
    with perception.load_model("imagenet", precision="fp32") as model:
        task = model.card.classification
        assert task is not None
        names = task.names
        assert (
            len(names) == 1000 and names[0] == "tench" and names[817] == "sports car" and names[999] == "toilet tissue"
        )
        for seed in range(3):
            image = squares(seed)
            rgb = torch.from_numpy(image[..., ::-1].astype(np.float32)).permute(2, 0, 1)[None]
            with torch.inference_mode():
                truth = network.classify((rgb - 127) / 128).softmax(1)[0].numpy()
            labels = model.predict(image).labels
            assert labels is not None and len(labels) == 5
            assert labels[0][0] == truth.argmax()
            for label, probability in labels:
                assert probability == pytest.approx(truth[label], abs=0.01)


def test_shipped_models_are_small_together() -> None:
    shipped = [p for p in model_paths().values() if p.parent == find_model("imagenet").parent]
    assert find_model("imagenet").stat().st_size < 10e6
    assert sum(p.stat().st_size for p in shipped) < 20e6


def test_weights_of_the_shipped_model_are_in_half() -> None:
    weights = load_onnx(find_model("imagenet")).graph.initializer
    half = sum(int(np.prod(w.dims)) for w in weights if w.data_type == TensorProto.FLOAT16)
    assert half > 0.99 * sum(int(np.prod(w.dims)) for w in weights)


def fat(seed: int) -> onnx.ModelProto:
    """`mixed_network` with one tensor large enough to be stored in half."""
    model = mixed_network(np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 100)
    for weight in model.graph.initializer:
        if weight.name == "w2":
            weight.CopyFrom(numpy_helper.from_array(rng.standard_normal((8, 128, 1, 1)).astype(np.float32), "w2"))
        elif weight.name == "w3":
            values = rng.standard_normal((3, 128, 1, 1)).astype(np.float32) / 50
            weight.CopyFrom(numpy_helper.from_array(values, "w3"))
    return model


@pytest.mark.parametrize("seed", range(3))
def test_storing_in_half_changes_little_and_only_what_is_large(seed: int) -> None:
    model = fat(seed)
    before = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    frames = np.random.default_rng(seed).integers(0, 256, (1, 16, 16, 3), np.uint8)
    truth = _run(model, frames)
    change = store_in_half(model)
    onnx.checker.check_model(model, full_check=True)
    assert {w.name for w in model.graph.initializer if w.data_type == TensorProto.FLOAT16} == {"w2/half"}
    assert before["w2"].size >= LEAST_VALUES > before["w3"].size
    rounded = before["w2"].astype(np.float16).astype(np.float32)
    assert change == pytest.approx(np.abs(rounded - before["w2"]).max() / np.abs(before["w2"]).max())
    assert 0 < change < 1 / 2048
    result = _run(model, frames)
    assert 0 < np.abs(result - truth).max() < 0.01 * np.abs(truth).max()


def test_weights_too_large_for_half_are_refused() -> None:
    model = fat(0)
    for weight in model.graph.initializer:
        if weight.name == "w2":
            values = numpy_helper.to_array(weight).copy()
            values[3, 5] = 1e5
            weight.CopyFrom(numpy_helper.from_array(values, "w2"))
    with pytest.raises(ValueError, match=r"w2 has the weight 100000"):
        store_in_half(model)


def _run(model: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"frames": frames})[0]


def test_the_export_says_where_it_cannot_write(tmp_path: Path) -> None:
    from perception.errors import UsageError
    from perception.training.export.imagenet import export_imagenet

    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        export_imagenet(tmp_path / "file" / "imagenet.onnx")
