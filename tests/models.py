"""Small real networks with the contract of a shipped model, whose answers can be told from the colours of the frame.

    path = write_model(tmp_path / "colors.onnx", width=64, height=48, classes=3)
    model = perception.load_model(path)
    model.predict(red_frame).class_map.mask  # all 0: class 0 is "red"

Segmentation: the class of a cell is the palette colour nearest to the cell's mean colour. Detection: the input is a
grid of square anchors; an anchor scores high for the class whose colour fills it, so a coloured square on the grid
over a colour that is not in the palette (gray) gives exactly one box with exact bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.card import ModelCard, keep_in_card, read_card, validate_card, write_card
from perception.common.calibration import UnknownScale

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
"""Class names and RGB colours, in the order that ``classes`` takes them."""


def solid(name: str, width: int = 64, height: int = 48) -> np.ndarray:
    """A frame of one palette colour, uint8 ``[height, width, 3]`` BGR."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = PALETTE[name][::-1]
    return image


def write_model(path: str | Path, **options: Any) -> Path:
    """Write a tiny network and its card to ``path``; see `build_model` for the options."""
    path = Path(path)
    onnx.save(build_model(**options), str(path))
    return path


FLOORS = [-100.0, 2.0, 100.0]
"""A network of three colours gives that of a class 4 and gray 0: a loss of a half leaves gray unknown, and no class."""


def calibrated(path: Path) -> Path:
    """Say in a model's card from which logits on a pixel is known; unknown ones are class 3."""
    task = read_card(path).segmentation
    assert task is not None
    keep_in_card(path, segmentation=task.model_copy(update={"unknown": UnknownScale(id=3, logits=FLOORS)}))
    return path


def half_gray() -> np.ndarray:
    """Red above, gray below, 64x48."""
    image = np.full((48, 64, 3), 128, np.uint8)
    image[:24] = (0, 0, 220)
    return image


def build_model(
    *,
    width: int = 64,
    height: int = 48,
    classes: int | Sequence[str] = 3,
    segmentation: bool = True,
    detection: bool = False,
    classification: bool = False,
    stride: int = 4,
    anchor: int = 16,
    resize: str = "stretch",
    multiple: int | None = None,
    ignored: Sequence[int] = (),
    name: str = "colors",
    called: Mapping[str, str] | None = None,
    with_card: bool = True,
) -> onnx.ModelProto:
    """A network of a cast, a transpose, a pooling and a 1x1 convolution, with its card inside.

    Args:
        width, height: input size, multiples of ``stride`` (and of ``anchor`` where there is detection).
        classes: how many of `PALETTE`, or which.
        segmentation: output ``class_logits`` ``[N, C, height / stride, width / stride]``.
        detection: outputs ``boxes`` ``[N, K, 4]`` and ``scores`` ``[N, K, C]``. Each grid cell has two anchors: the
            cell itself, and the cell without its right tenth, scored a little lower, for the suppression to remove.
        classification: output ``probabilities`` ``[N, C]``, softmax of the mean logits.
        stride: pixels per cell of the segmentation.
        anchor: side of the detection anchors in pixels.
        resize: ``stretch`` or ``letterbox``.
        multiple: leave height and width of the graph free, and say so in the card. Not with detection.
        ignored: class ids that the card says are never drawn.
        name: name in the card.
        called: other names of classes in the card, by their name in `PALETTE`.
        with_card: False leaves the card out, as in a foreign file.
    """
    names = list(PALETTE)[:classes] if isinstance(classes, int) else list(classes)
    step = np.lcm(stride, anchor) if detection else stride
    if width % step or height % step or (detection and multiple):
        raise ValueError("width and height must be multiples of stride and anchor; free sizes only without detection")
    colors = np.array([PALETTE[n][::-1] for n in names], np.float32) / 255  # BGR, as the input is
    nodes = [
        helper.make_node("Cast", ["frames"], ["float_frames"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float_frames"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["planes", "full"], ["unit"]),
    ]
    constants = {"full": np.float32(255)}
    outputs = []

    def nearest_color(source: str, result: str, gain: float) -> None:
        # gain * -|x - c|^2 without the part common to all classes: gain * (2 c.x - |c|^2)
        constants[f"{result}_weight"] = (2 * gain * colors)[:, :, None, None]
        constants[f"{result}_bias"] = -gain * (colors**2).sum(1)
        nodes.append(helper.make_node("Conv", [source, f"{result}_weight", f"{result}_bias"], [result]))

    if segmentation:
        nodes.append(_average("unit", "cells", stride))
        nearest_color("cells", "class_logits", gain=4)
        rows, columns = (None, None) if multiple else (height // stride, width // stride)
        outputs.append(_float_output("class_logits", ["N", len(names), rows, columns]))
    if detection:
        rows, columns = height // anchor, width // anchor
        nodes.append(_average("unit", "anchor_cells", anchor))
        nearest_color("anchor_cells", "closeness", gain=28)
        constants["squares"] = np.full((1, 3, 1, 1), -28, np.float32)
        constants["margin"] = np.float32(4)
        constants["lower"] = np.float32(0.9)
        constants["cells_last"] = np.array([0, len(names), rows * columns], np.int64)
        constants["boxes_once"] = _anchors(rows, columns, anchor)[None]
        nodes += [
            helper.make_node("Mul", ["anchor_cells", "anchor_cells"], ["squared"]),
            helper.make_node("Conv", ["squared", "squares"], ["minus_norm"]),
            helper.make_node("Add", ["closeness", "minus_norm"], ["minus_distance"]),
            helper.make_node("Add", ["minus_distance", "margin"], ["score_logits"]),
            helper.make_node("Sigmoid", ["score_logits"], ["score_map"]),
            helper.make_node("Reshape", ["score_map", "cells_last"], ["score_rows"]),
            helper.make_node("Transpose", ["score_rows"], ["cell_scores"], perm=[0, 2, 1]),
            helper.make_node("Mul", ["cell_scores", "lower"], ["narrow_scores"]),
            helper.make_node("Concat", ["cell_scores", "narrow_scores"], ["scores"], axis=1),
            # boxes for each frame of the batch: zeros of the right batch size, plus the anchors
            helper.make_node("ReduceMax", ["scores"], ["any_score"], axes=[1, 2], keepdims=1),
            helper.make_node("Mul", ["any_score", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "boxes_once"], ["boxes"]),
        ]
        constants["nothing"] = np.float32(0)
        outputs.append(_float_output("boxes", ["N", 2 * rows * columns, 4]))
        outputs.append(_float_output("scores", ["N", 2 * rows * columns, len(names)]))
    if classification:
        nodes.append(helper.make_node("GlobalAveragePool", ["unit"], ["mean_color"]))
        nearest_color("mean_color", "color_logits", gain=4)
        nodes += [
            helper.make_node("Flatten", ["color_logits"], ["flat_logits"], axis=1),
            helper.make_node("Softmax", ["flat_logits"], ["probabilities"], axis=1),
        ]
        outputs.append(_float_output("probabilities", ["N", len(names)]))

    size = ["height", "width"] if multiple else [height, width]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", *size, 3])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    if with_card:
        tasks = {"segmentation": segmentation, "detection": detection, "classification": classification}
        write_card(model, _card(name, names, called or {}, width, height, resize, multiple, ignored, tasks))
    return model


def _card(
    name: str,
    names: Sequence[str],
    called: Mapping[str, str],
    width: int,
    height: int,
    resize: str,
    multiple: int | None,
    ignored: Sequence[int],
    tasks: dict[str, bool],
) -> ModelCard:
    classes = [{"name": called.get(n, n), "color": PALETTE[n]} for n in names]
    data: dict[str, Any] = {task: {"classes": classes} for task, wanted in tasks.items() if wanted}
    if "segmentation" in data:
        data["segmentation"]["ignored"] = list(ignored)
    data |= {"name": name, "licence": "MIT", "trained_on": ["nothing"]}
    data["input"] = {"width": width, "height": height, "resize": resize, "multiple": multiple}
    return validate_card(data, "tests/models.py")


def _anchors(rows: int, columns: int, side: int) -> np.ndarray:
    """float32 ``[2 * rows * columns, 4]`` xyxy: all cells row by row, then all cells without their right tenth."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32) * side
    cells = np.stack([x, y, x + side, y + side], -1).reshape(-1, 4)
    narrow = cells.copy()
    narrow[:, 2] -= 0.1 * side
    return np.concatenate([cells, narrow])


def _average(source: str, result: str, side: int) -> onnx.NodeProto:
    return helper.make_node("AveragePool", [source], [result], kernel_shape=[side, side], strides=[side, side])


def _float_output(name: str, shape: Sequence[str | int | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
