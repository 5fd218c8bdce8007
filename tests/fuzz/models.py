"""Model files: damaged, hostile and merely odd ONNX, with their cards."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import onnx

from perception.foreign.adapt import adapt
from perception.model import load_model
from tests.foreign.graphs import Net
from tests.fuzz.family import Family, pack, random_for, unpack
from tests.fuzz.mutate import NUMBERS, mutated, odd_tree
from tests.media import quadrants
from tests.models import build_model

TEXTS = ("", "\0", "x" * 3000, "frames", "boxes", "../../../etc/passwd", "/etc/passwd", "é", "ai.onnx", "Conv", "If")
OPERATORS = ("Conv", "Loop", "If", "Scan", "Gather", "Reshape", "Resize", "TopK", "NonMaxSuppression", "Expand", "Tile",
             "ConstantOfShape", "Range", "Pad", "Identity", "RandomNormal", "Nonsense", "MatMul", "Concat", "Split",
             "SequenceAt", "StringNormalizer", "QuantizeLinear", "GridSample", "Einsum", "LSTM")  # fmt: skip
CARD = """
name: foreign
licence: MIT
input: {width: 64, height: 48, resize: letterbox}
detection: {classes: [person, car]}
adapter: {input: {channels: RGB, scale: 1/255}, detection: {format: yolov8}}
"""


def hostile(random: Random, model: onnx.ModelProto) -> None:
    """Change a few fields of a model, or of what it holds."""
    for _ in range(random.randint(1, 3)):
        random.choice((_field, _field, _field, _dims, _external, _tangle, _operator, _grow))(random, model)


def _messages(message: Any, depth: int = 0) -> list[Any]:
    found = [message]
    if depth < 12:
        for field, value in message.ListFields():
            if field.message_type is not None:
                for part in value if field.is_repeated else [value]:
                    found += _messages(part, depth + 1)
    return found


def _field(random: Random, model: onnx.ModelProto) -> None:
    """Any one field of any part."""
    message = random.choice(_messages(model))
    fields = [(f, v) for f, v in message.ListFields() if f.message_type is None] or [(None, None)]
    field, _ = random.choice(fields)
    if field is None or random.random() < 0.1:
        message.Clear()
        return
    value: Any
    if field.cpp_type == field.CPPTYPE_STRING:
        value = random.choice(TEXTS)
        value = value.encode() if field.type == field.TYPE_BYTES else value
    elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        value = random.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    elif field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_ENUM):
        value = random.choice((0, 1, -1, 2, 7, 99, 2**31 - 1))
    else:
        value = random.choice((0, 1, -1, 3, 4, 640, *(n for n in NUMBERS if n < 1 << 63)))
        value = abs(value) if "UINT" in str(field.cpp_type) else value
    try:
        if field.is_repeated:
            kept = getattr(message, field.name)
            kept[random.randrange(len(kept))] = value
        else:
            setattr(message, field.name, value)
    except (TypeError, ValueError):
        message.ClearField(field.name)


def _dims(random: Random, model: onnx.ModelProto) -> None:
    """Weights that say to be larger, smaller or of another type than they are."""
    if not model.graph.initializer:
        return
    tensor = random.choice(model.graph.initializer)
    del tensor.dims[:]
    tensor.dims.extend(
        random.choice(((1 << 40,), (1 << 31, 1 << 31), (0,), (-1,), (), (1 << 20, 1 << 12), (3, 3, 3, 3)))
    )
    if random.random() < 0.3:
        tensor.data_type = random.randrange(25)


def _external(random: Random, model: onnx.ModelProto) -> None:
    """Weights in another file, which is none of theirs."""
    if not model.graph.initializer:
        return
    tensor = random.choice(model.graph.initializer)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    if random.random() < 0.5:
        tensor.ClearField("raw_data")
    places = ("/etc/passwd", "../../../../etc/passwd", "/dev/zero", "/dev/stdin", "", "\0", ".", "input.onnx",
              "x" * 5000,
              "file:///etc/passwd", "/proc/self/mem", "missing.bin")  # fmt: skip
    entries = {"location": random.choice(places)}
    if random.random() < 0.5:
        entries |= {
            "offset": random.choice(("0", "-1", "99999999999", "x")),
            "length": random.choice(("4", "-4", "1" * 30)),
        }
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _tangle(random: Random, model: onnx.ModelProto) -> None:
    """A node that waits for itself, or for another one's, or that is there twice."""
    nodes = model.graph.node
    if not nodes:
        return
    node = random.choice(nodes)
    how = random.randrange(4)
    if how == 0 and node.input and node.output:
        node.input[0] = node.output[0]
    elif how == 1:
        nodes.add().CopyFrom(node)
    elif how == 2:
        nodes.remove(node)
    elif node.input:
        node.input[random.randrange(len(node.input))] = random.choice(random.choice(nodes).output or [""])


def _operator(random: Random, model: onnx.ModelProto) -> None:
    if model.graph.node:
        node = random.choice(model.graph.node)
        node.op_type = random.choice(OPERATORS)
        if random.random() < 0.5:
            node.attribute.extend([
                onnx.helper.make_attribute(random.choice(("axis", "k", "to", "mode", "strides", "value")), value)
                for value in [random.choice((0, -1, 1 << 40, [1 << 30] * 4, [0, 0], "nonsense", 1e30))]
            ])  # fmt: skip


def _grow(random: Random, model: onnx.ModelProto) -> None:
    """Graphs in graphs, or outputs as large as memory."""
    if random.random() < 0.5:
        graph = model.graph
        for _ in range(random.choice((3, 20, 60))):
            outer = onnx.GraphProto(name="g")
            node = outer.node.add(op_type="If", input=["c"], output=["o"])
            node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)
            graph = outer
        model.graph.CopyFrom(graph)
        return
    size = random.choice((1 << 16, 1 << 20, 1 << 26, 1 << 40))
    shape = onnx.helper.make_tensor("huge", onnx.TensorProto.INT64, [2], [size, 1 << 10])
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["huge"], ["filled"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("filled", onnx.TensorProto.FLOAT, [None, None]))


class Inputs(Family):
    """Each is loaded and run once, as ours or with a foreign card; see `perception.model` and `perception.foreign`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        logging.getLogger("perception").setLevel(logging.ERROR)

    @cached_property
    def _models(self) -> dict[str, onnx.ModelProto]:
        foreign = Net()
        rows = foreign("Transpose", foreign.rows(6, 16), perm=[0, 2, 1])
        foreign.output(rows, "output0", ["batch", 6, 12])
        return {
            "ours": build_model(detection=True, classification=True),
            "free": build_model(multiple=16),
            "foreign": foreign.build(),
        }

    def make(self, seed: int, index: int) -> bytes:
        random = random_for("models", seed, index)
        name = random.choice(("ours", "ours", "free", "foreign"))
        model = onnx.ModelProto()
        model.CopyFrom(self._models[name])
        how = random.randrange(10)
        if how < 6:
            hostile(random, model)
        elif how < 8 and model.metadata_props:
            entry = model.metadata_props[0]
            tree = odd_tree(random, json.loads(entry.value))
            entry.value = json.dumps(tree) if random.random() < 0.9 else "[" * 100_000
        try:
            body = model.SerializeToString(deterministic=True)
        except (ValueError, UnicodeError):
            body = self._models[name].SerializeToString(deterministic=True)
        if how >= 8:
            body = mutated(random, body)
        engine = random.choice(("openvino", "openvino", "onnxruntime"))
        return pack(body, kind=name, engine=engine)

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        path, card, out = (self.folder / name for name in ("input.onnx", "card.yaml", "out.onnx"))
        path.write_bytes(body)
        card.write_text(CARD)
        try:
            if head["kind"] == "foreign":
                adapt(path, card, out, engine=head["engine"])
            else:
                with load_model(path, engine=head["engine"], precision="fp32", threads=1) as model:
                    prediction = model.predict(quadrants((64, 48)))
                    if prediction.class_map is not None:
                        assert prediction.class_map.mask.shape == (48, 64)
        finally:
            for file in (path, card, out):
                file.unlink(missing_ok=True)
        return True
