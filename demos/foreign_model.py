"""Run somebody else's model: an ONNX file, and a card in YAML that describes its inputs and outputs.

python demos/foreign_model.py                                        # a tiny YOLOX-like network, made here
python demos/foreign_model.py yolov8n.onnx yolov8 street.mp4
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import perception

CARD = """
name: colours
licence: MIT
input: {width: 320, height: 192}
detection: {classes: [red, green, blue], score_threshold: 0.5}
adapter:
  input: {channels: RGB, scale: 1/255}            # the input
  detection: {format: yolox, strides: [32]}       # the output: cells of a grid, not yet decoded
"""


def write_tiny_yolox(path: Path) -> None:
    """Write a network of one convolution: a cell of 32x32 pixels is an object if it is mostly red, green or blue."""
    weights = np.zeros((8, 3, 32, 32), np.float32)
    weights[5:] = (60 * np.eye(3) - 20)[:, :, None, None] / 32**2
    bias = np.array([0.5, 0.5, 0, 0, 9, -4, -4, -4], np.float32)  # centre, log size, objectness, class logits
    nodes = [
        helper.make_node("Conv", ["images", "weights", "bias"], ["cells"], strides=[32, 32]),
        helper.make_node("Reshape", ["cells", "shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Split", ["rows", "parts"], ["box", "logits"], axis=2),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Concat", ["box", "scores"], ["output"], axis=2),
    ]
    ends = {"images": ["N", 3, 192, 320], "output": ["N", 60, 8]}
    images, output = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends.items())
    values = {"weights": weights, "bias": bias, "shape": np.array([0, 8, -1]), "parts": np.array([4, 4])}
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "tiny", [images], [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


with tempfile.TemporaryDirectory() as folder:
    made = [f"{folder}/tiny.onnx", f"{folder}/tiny.yaml", "synthetic:?frames=20"]
    model_path, card_path, source = sys.argv[1:] or made
    if source is made[2]:
        write_tiny_yolox(Path(model_path))
        Path(card_path).write_text(CARD)
    with perception.open_source(source) as opened, perception.load_model(model_path, card=card_path) as model:
        for prediction in perception.predict(opened, model):
            found = [model.card.detection.names[c] for c in prediction.detections.class_ids]
            print(f"{prediction.frame.time:6.2f} s ", *(f"{found.count(n)} {n}" for n in dict.fromkeys(found)))
