"""Weights as pictures, and a LeNet that slides over a page."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import torch
from onnx import numpy_helper

from perception.card import load_onnx
from perception.classics.fully_convolutional import to_fully_convolutional
from perception.classics.tour.stop import Stop, grey_input
from perception.errors import ModelError
from perception.explain.tiles import side_by_side
from perception.networks.classifier import Classifier, first_convolution
from perception.postprocess.detection import nms
from perception.types import F32, U8
from perception.weights.library import find_model

ZOOM = 2
CONFIDENCE = 0.995
PAGE = (112, 224)  # rows, columns
DIGITS = ((12, 20, "3"), (58, 12, "1"), (110, 28, "4"), (166, 14, "5"), (30, 72, "9"), (96, 76, "2"), (150, 66, "7"))
"""x, y of the top left corner, and what is written there."""


def filters(stop: Stop) -> U8:
    """Draw the first convolution of the shipped model and of trained recipes, each filter from dark to light."""
    rows = [(stop.model, _first_weights(stop.model))]
    for recipe in ("lenet5-v2-mnist", "lenet-color-cifar10", "mini-alexnet-v4-cifar10"):
        try:
            network = stop.trained(recipe)
        except ModelError:
            continue
        inner = network.network if isinstance(network, Classifier) else network
        rows.append((recipe, first_convolution(inner).weight.detach().numpy()))
    shapes = ("x".join(map(str, (*weights.shape[2:], weights.shape[1]))) for _, weights in rows)
    titles = [f"{name}: {len(weights)} of {shape}" for (name, weights), shape in zip(rows, shapes, strict=True)]
    return np.concatenate([side_by_side([(t, _grid(w))]) for t, (_, w) in zip(titles, rows, strict=True)])


def windows(stop: Stop) -> U8:
    """Draw the answers of a LeNet trained on single digits for all windows of a page: class, confidence, selection.

    Raises:
        ModelError: it is not trained yet.
    """
    network = stop.trained("lenet5-v2-mnist")
    assert isinstance(network, Classifier)
    lenet = network.network
    sliding = to_fully_convolutional(lenet, (1, 28, 28))
    page = _page()
    with torch.inference_mode():
        probabilities = sliding(grey_input(page)).softmax(1)[0].numpy()
    best, digit = probabilities.max(0), probabilities.argmax(0)
    rows, columns = np.nonzero(best > CONFIDENCE)
    step_y, step_x = sliding.step  # type: ignore[misc]
    corner = np.stack((columns * step_x, rows * step_y), 1).astype(np.float32)
    boxes = np.concatenate((corner, corner + 28), 1)
    kept = nms(boxes, best[rows, columns], None, 0.2)
    large: U8 = np.repeat(page, 3).reshape(*page.shape, 3).repeat(ZOOM, 0).repeat(ZOOM, 1)
    return side_by_side(
        [
            (
                f"{best.size} windows of a page: digit by colour, confidence by brightness",
                _colored(best, digit, large.shape),
            ),
            (
                f"confidence above {CONFIDENCE} and not suppressed",
                _labelled(large, boxes[kept], digit[rows, columns][kept]),
            ),
        ],
        columns=1,
    )


def _page() -> U8:
    """Digits of about the size and stroke of MNIST's, light on dark, drawn with a font."""
    page = np.zeros(PAGE, np.uint8)
    for x, y, text in DIGITS:
        cv2.putText(page, text, (x, y + 20), cv2.FONT_HERSHEY_SIMPLEX, 0.85, 255, 2, cv2.LINE_AA)
    return cv2.GaussianBlur(page, (3, 3), 0.6).astype(np.uint8)


def _colored(best: F32, digit: np.ndarray, shape: tuple[int, ...]) -> U8:
    """Draw one cell per window, in the middle of the page: a window's answer stands at its centre."""
    hue = (digit * 18).astype(np.uint8)
    value = np.clip((best - 0.5) * 2 * 255, 0, 255).astype(np.uint8)
    cells = cv2.cvtColor(np.stack((hue, np.full_like(hue, 200), value), -1), cv2.COLOR_HSV2BGR)
    cells = cells.repeat(4 * ZOOM, 0).repeat(4 * ZOOM, 1)
    whole = np.full(shape, 40, np.uint8)
    top, left = (shape[0] - cells.shape[0]) // 2, (shape[1] - cells.shape[1]) // 2
    whole[top : top + cells.shape[0], left : left + cells.shape[1]] = cells
    return whole


def _labelled(image: U8, boxes: F32, digits: np.ndarray) -> U8:
    made = image.copy()
    for (x0, y0, x1, y1), digit in zip((boxes * ZOOM).astype(int).tolist(), digits.tolist(), strict=True):
        color = tuple(
            int(v) for v in cv2.cvtColor(np.array([[[digit * 18, 200, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
        )
        cv2.rectangle(made, (x0, y0), (x1 - 1, y1 - 1), color, 1)
        cv2.putText(made, str(digit), (x0 + 3, y0 + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, 1, cv2.LINE_AA)
    return made


def _first_weights(model: str) -> F32:
    """float32 ``[K, 3, h, w]`` of a model file's first convolution, RGB."""
    graph = load_onnx(find_model(model)).graph
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    tensors: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
    convolution = next(node for node in graph.node if node.op_type == "Conv")
    name = convolution.input[1]
    found = tensors.get(source.get(name, name))
    if found is None:
        raise ModelError("its first convolution's weights are not stored as floats", model)
    weights: F32 = numpy_helper.to_array(found).astype(np.float32)[:, ::-1]
    return weights


def _grid(weights: F32, columns: int = 16, side: int = 40) -> U8:
    """Filters ``[K, C, h, w]`` (C is 1 or 3, RGB) as tiles, each stretched to its own range."""
    tiles = []
    for weight in weights:
        low, high = float(weight.min()), float(weight.max())
        tile = ((weight - low) / max(high - low, 1e-9) * 255).astype(np.uint8).transpose(1, 2, 0)[..., ::-1]
        tile = np.ascontiguousarray(np.repeat(tile, 3 // tile.shape[2], 2))
        tiles.append(np.pad(cv2.resize(tile, (side, side), interpolation=cv2.INTER_NEAREST), ((2, 2), (2, 2), (0, 0))))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)])
