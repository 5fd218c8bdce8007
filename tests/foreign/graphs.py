"""Tiny graphs with the output conventions of foreign detectors and segmenters, and slow decoders for them.

The decoders are written from the projects' conventions, box by box in plain Python, and share nothing with the
package.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOATS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}


class Net:
    """A foreign graph in the making: random convolutions, and whatever comes after them."""

    def __init__(
        self,
        width: int = 64,
        height: int = 48,
        *,
        seed: int = 0,
        layout: str = "NCHW",
        batch: int | str = "batch",
        dtype: int = TensorProto.FLOAT,
        input_name: str = "images",
        size: tuple[int | str, int | str] | None = None,
        opset: int = 17,
    ) -> None:
        self.width, self.height = width, height
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        rows, columns = size or (height, width)
        shape = [batch, 3, rows, columns] if layout == "NCHW" else [batch, rows, columns, 3]
        self.inputs = [helper.make_tensor_value_info(input_name, dtype, shape)]
        self.outputs: list[onnx.ValueInfoProto] = []
        self.image = input_name if layout == "NCHW" else self("Transpose", input_name, perm=[0, 3, 1, 2])
        self.opset = opset

    def __call__(self, op: str, *inputs: str | np.ndarray, result: str | None = None, **attributes: Any) -> str:
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        result = result or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [result], name=f"node_{result}", **attributes))
        return result

    def constant(self, value: np.ndarray) -> str:
        name = f"weight_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def conv(self, channels: int, stride: int, gain: float = 1.0, dtype: type = np.float32, image: str = "") -> str:
        """Random logits ``[N, channels, H / stride, W / stride]`` of the image, around 0 with deviation ``gain``."""
        shape = (channels, 3, stride, stride)
        weights = self.rng.normal(0, gain * 2 / math.sqrt(np.prod(shape[1:])), shape).astype(dtype)
        bias = self.rng.normal(0, gain / 2, channels).astype(dtype)
        return self("Conv", image or self.image, weights, bias, strides=[stride, stride])

    def rows(self, columns: int, stride: int, gain: float = 1.0) -> str:
        """The same as rows ``[N, A, columns]``, cell by cell."""
        return self("Transpose", self.flat(self.conv(columns, stride, gain), columns), perm=[0, 2, 1])

    def flat(self, x: str, channels: int) -> str:
        return self("Reshape", x, np.array([0, channels, -1], np.int64))

    def part(self, x: str, start: int, stop: int, axis: int = 2) -> str:
        return self("Slice", x, *(np.array([n], np.int64) for n in (start, stop, axis)))

    def output(self, tensor: str, name: str, shape: list[Any], dtype: int = TensorProto.FLOAT) -> Net:
        self("Identity", tensor, result=name)
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return self

    def build(self) -> onnx.ModelProto:
        weights = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "foreign", self.inputs, self.outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def write(self, path: Path) -> Path:
        onnx.save(self.build(), str(path))
        return path


# detectors, each with C = 3 classes


def yolox(net: Net, strides: tuple[int, ...] = (8, 16)) -> Net:
    levels = []
    for stride in strides:
        rows = net.rows(8, stride)
        levels.append(net("Concat", net.part(rows, 0, 4), net("Sigmoid", net.part(rows, 4, 8)), axis=2))
    return net.output(net("Concat", *levels, axis=1), "output", ["batch", None, 8])


def yolov5(net: Net) -> Net:
    rows = net("Sigmoid", net.rows(8, 8))
    scale = np.array([net.width, net.height, 30, 30, 1, 1, 1, 1], np.float32)
    return net.output(net("Mul", rows, scale), "output0", ["batch", None, 8])


def yolov8(net: Net, transposed: bool = False) -> Net:
    rows = net("Sigmoid", net.rows(7, 8))
    rows = net("Mul", rows, np.array([net.width, net.height, 30, 30, 1, 1, 1], np.float32))
    cells = net.width * net.height // 64
    if transposed:
        return net.output(rows, "output0", ["batch", cells, 7])
    return net.output(net("Transpose", rows, perm=[0, 2, 1]), "output0", ["batch", 7, cells])


def yolov10(net: Net) -> Net:
    rows = net("Sigmoid", net.rows(6, 8, gain=2))
    rows = net("Mul", rows, np.array([30, 20, 20, 20, 1, 2.99], np.float32))
    low, size, score = net.part(rows, 0, 2), net.part(rows, 2, 4), net.part(rows, 4, 5)
    label = net("Floor", net.part(rows, 5, 6))
    whole = net("Concat", low, net("Add", low, size), score, label, axis=2)
    return net.output(whole, "output0", ["batch", None, 6])


def boxes_scores(
    net: Net,
    *,
    columns: int = 3,
    second: bool = False,
    batchless: bool = False,
    extra_axis: bool = False,
    scores: str = "scores",
    squash: bool = True,
) -> Net:
    boxes, logits = net("Sigmoid", net.rows(4, 8)), net.rows(columns, 8, gain=2)
    values = net("Sigmoid", logits) if squash else logits
    if batchless:
        boxes, values = (net("Reshape", x, np.array([-1, n], np.int64)) for x, n in ((boxes, 4), (values, columns)))
    if second:
        values = net("Transpose", values, perm=[1, 0] if batchless else [0, 2, 1])
    if extra_axis:
        boxes = net("Reshape", boxes, np.array([0, -1, 1, 4], np.int64))
    n = [] if batchless else ["batch"]
    net.output(boxes, "boxes", [*n, None, 1, 4] if extra_axis else [*n, None, 4])
    return net.output(values, scores, [*n, columns, None] if second else [*n, None, columns])


def labelled(net: Net, *, batchless: bool = False, dtype: int = TensorProto.INT64) -> Net:
    boxes, logits = net("Sigmoid", net.rows(4, 8)), net.rows(4, 8, gain=2)
    best = net("ReduceMax", net("Sigmoid", logits), axes=[2], keepdims=0)
    labels = net("Cast", net("ArgMax", logits, axis=2, keepdims=0), to=dtype)
    if batchless:
        boxes = net("Reshape", boxes, np.array([-1, 4], np.int64))
        best, labels = (net("Reshape", x, np.array([-1], np.int64)) for x in (best, labels))
    n = [] if batchless else ["batch"]
    net.output(boxes, "detection_boxes", [*n, None, 4]).output(best, "detection_scores", [*n, None])
    return net.output(labels, "detection_classes", [*n, None], dtype)


# slow decoders: raw outputs of one image to a list of (box xyxy in input pixels, scores of the classes)

Decoded = list[tuple[list[float], list[float]]]


def around(cx: float, cy: float, w: float, h: float) -> list[float]:
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def decode_yolox(output: np.ndarray, width: int, height: int, strides: tuple[int, ...] = (8, 16)) -> Decoded:
    found, row = [], 0
    for stride in strides:
        for y in range(height // stride):
            for x in range(width // stride):
                dx, dy, log_w, log_h, objectness, *classes = (float(v) for v in output[row])
                box = around((x + dx) * stride, (y + dy) * stride, math.exp(log_w) * stride, math.exp(log_h) * stride)
                found.append((box, [objectness * c for c in classes]))
                row += 1
    assert row == len(output)
    return found


def decode_rows(output: np.ndarray, objectness: bool) -> Decoded:
    found = []
    for cx, cy, w, h, *rest in output.astype(float).tolist():
        found.append((around(cx, cy, w, h), [rest[0] * c for c in rest[1:]] if objectness else rest))
    return found


def decode_labelled(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, classes: int, first: int) -> Decoded:
    return [
        (box.tolist(), [float(score) if int(label) - first == c else 0.0 for c in range(classes)])
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]


def corner_box(box: list[float], corners: str) -> list[float]:
    a, b, c, d = box
    return {
        "xyxy": [a, b, c, d], "yxyx": [b, a, d, c], "xywh": [a, b, a + c, b + d], "cxcywh": around(a, b, c, d)
    }[corners]  # fmt: skip


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(v - max(values)) for v in values]
    return [p / sum(powers) for p in powers]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def prepare(frame: np.ndarray, *, channels: str, scale: float, mean: Any, std: Any, layout: str) -> np.ndarray:
    """One uint8 BGR frame as a foreign graph takes it, pixel by pixel's arithmetic in double precision."""
    image = frame.astype(np.float64)
    if channels == "RGB":
        image = image[:, :, [2, 1, 0]]
    image = (image * scale - np.asarray(mean)) / np.asarray(std)
    return (image.transpose(2, 0, 1) if layout == "NCHW" else image)[None].astype(np.float32)
