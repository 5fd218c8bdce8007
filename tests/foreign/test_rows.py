"""Foreign detectors whose boxes, scores and labels stand in the rows of one output, against what was planted in it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto
from typer.testing import CliRunner

from perception import ModelError, load_model
from perception.card import validate_card
from perception.commands.main import app
from perception.engines import open_engine
from perception.foreign.adapt import adapt_model
from perception.foreign.adapter import ForeignCard
from tests.fixtures import Main
from tests.foreign.graphs import Net, corner_box
from tests.noise import noise_frames

WIDTH, HEIGHT = 96, 64
CASES = Path(__file__).parents[1] / "cases"
ENGINES = ("openvino", "onnxruntime", "torch")


def data(detection: dict[str, Any], classes: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    return {
        "name": "rows", "licence": "MIT", "input": {"width": size[0], "height": size[1]},
        "detection": {"classes": [f"class {i}" for i in range(classes)]},
        "adapter": {"input": {"channels": "RGB", "scale": "1/255"}, "detection": detection},
    }  # fmt: skip


def card(detection: dict[str, Any], classes: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT)) -> ForeignCard:
    return validate_card(data(detection, classes, size), "card.yaml", ForeignCard)


def planted(net: Net, name: str, values: np.ndarray, shape: list[Any], kind: int = TensorProto.FLOAT) -> Net:
    """An output that has ``values`` for any picture, and depends on the picture as far as a graph can tell."""
    mean = net("Reshape", net("ReduceMean", net.image, keepdims=1), np.array([1], np.int64))
    nothing = net("Mul", mean, np.zeros(1, np.float32))
    return net.output(net("Cast", net("Add", nothing, values.astype(np.float32)), to=kind), name, shape, kind)


def run(
    net: Net, described: ForeignCard, folder: Path, engine: str = "onnxruntime", frames: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    path = folder / f"{engine}.onnx"
    onnx.save(adapt_model(net.build(), described, path), str(path))
    with open_engine(path, described.native(), engine=engine, precision="fp32") as opened:
        results = opened.infer(noise_frames(frames, described.input.width, described.input.height))
    return results["boxes"], results["scores"]


class Table:
    """Random boxes, scores, labels, and rows of them in any order of columns; what is right is made beside it."""

    def __init__(self, seed: int, rows: int = 11, classes: int = 3) -> None:
        rng = self.rng = np.random.default_rng(seed)
        low = rng.uniform(0, 0.6, (rows, 2))
        self.low, self.high = low, low + rng.uniform(0.1, 0.4, (rows, 2))  # normalised
        self.rows, self.classes = rows, classes
        self.matrix = rng.uniform(0.05, 1, (rows, classes))
        self.score, self.label = rng.uniform(0.05, 1, rows), rng.integers(0, classes, rows)
        self.objectness = rng.uniform(0.05, 1, rows)

    def pixels(self) -> np.ndarray:
        return np.concatenate([self.low, self.high], 1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]

    def box(self, corners: str, coordinates: str) -> np.ndarray:
        (x1, y1), (x2, y2) = self.low.T, self.high.T
        box = {
            "xyxy": [x1, y1, x2, y2], "yxyx": [y1, x1, y2, x2], "xywh": [x1, y1, x2 - x1, y2 - y1],
            "cxcywh": [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1],
        }[corners]  # fmt: skip
        scale = [1, 1] if coordinates == "normalised" else [WIDTH, HEIGHT]
        return np.stack(box, 1) * (scale[::-1] * 2 if corners == "yxyx" else scale * 2)

    def one_hot(self) -> np.ndarray:
        return np.where(self.label[:, None] == np.arange(self.classes), self.score[:, None], 0)

    def table(self, columns: list[str | int], corners: str, coordinates: str) -> np.ndarray:
        parts = {
            "box": self.box(corners, coordinates), "classes": self.matrix, "score": self.score[:, None],
            "label": self.label[:, None], "objectness": self.objectness[:, None], "batch": np.zeros((self.rows, 1)),
        }  # fmt: skip
        filler = {c: self.rng.uniform(-50, 50, (self.rows, c)) for c in columns if isinstance(c, int)}
        return np.concatenate([filler[c] if isinstance(c, int) else parts[c] for c in columns], 1)

    def scores(self, columns: list[str | int]) -> np.ndarray:
        scores = self.matrix if "classes" in columns else self.one_hot()
        return scores * self.objectness[:, None] if "objectness" in columns else scores


LAYOUTS: dict[str, tuple[list[str | int], str, str]] = {
    "Ultralytics' RT-DETR": (["box", "classes"], "cxcywh", "normalised"),
    "masks": (["box", "classes", 32], "cxcywh", "pixels"),
    "masks, suppressed": (["box", "score", "label", 32], "xyxy", "pixels"),
    "key points": (["box", "objectness", "classes", 51], "cxcywh", "pixels"),
    "TensorRT's end to end": (["batch", "box", "label", "score"], "xyxy", "pixels"),
    "OpenVINO's SSD": (["batch", "label", "score", "box"], "xyxy", "normalised"),
    "Paddle": (["label", "score", "box"], "xyxy", "pixels"),
    "between": ([2, "box", 1, "classes", 3], "xywh", "normalised"),
    "TensorFlow's order": (["score", "box", 6, "label"], "yxyx", "normalised"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", ["[1, A, columns]", "[A, columns]", "[1, 1, A, columns]", "[1, columns, A]", "free"])
def test_rows_of_any_columns(layout: str, shape: str, tmp_path: Path) -> None:
    columns, corners, coordinates = LAYOUTS[layout]
    for seed, engine in enumerate(ENGINES if shape == "[1, A, columns]" else ["onnxruntime"]):
        table = Table(seed)
        values = table.table(columns, corners, coordinates)
        laid = {
            "[A, columns]": values, "[1, 1, A, columns]": values[None, None], "[1, columns, A]": values.T[None],
        }.get(shape, values[None])  # fmt: skip
        sizes = [None] * laid.ndim if shape == "free" else list(laid.shape)
        net = planted(Net(WIDTH, HEIGHT, batch=1), "out", laid, sizes)
        spec = {"format": "rows", "columns": columns, "corners": corners, "coordinates": coordinates}
        boxes, scores = run(net, card(spec), tmp_path, engine)
        np.testing.assert_allclose(boxes[0], table.pixels(), atol=1e-3)
        np.testing.assert_allclose(scores[0], table.scores(columns), atol=1e-5)
        assert corner_box(table.box(corners, "normalised")[0].tolist(), corners) == pytest.approx(
            [*table.low[0], *table.high[0]]
        )


@pytest.mark.parametrize(
    ("name", "change", "columns"),
    [
        ("yolov8", {}, ["box", "classes"]),
        ("yolov8", {"columns": ["box", "classes", 32]}, ["box", "classes", 32]),
        ("yolov5", {"columns": ["box", "objectness", "classes", 32]}, ["box", "objectness", "classes", 32]),
        ("yolov10", {"columns": ["box", "score", "label", 51]}, ["box", "score", "label", 51]),
        ("yolov8", {"coordinates": "normalised"}, ["box", "classes"]),
        ("yolov10", {"coordinates": "normalised", "corners": "cxcywh"}, ["box", "score", "label"]),
    ],
)
def test_a_yolo_is_rows_with_columns_that_are_known(
    name: str, change: dict[str, Any], columns: list[str | int], tmp_path: Path
) -> None:
    corners = change.get("corners", "xyxy" if name == "yolov10" else "cxcywh")
    for turned in (False, True):
        table = Table(3, rows=70)
        values = table.table(columns, corners, change.get("coordinates", "pixels"))
        laid = (values.T if turned else values)[None]
        net = planted(Net(WIDTH, HEIGHT, batch=1), "out", laid, list(laid.shape))
        boxes, scores = run(net, card({"format": name} | change), tmp_path)
        np.testing.assert_allclose(boxes[0], table.pixels(), atol=1e-3)
        np.testing.assert_allclose(scores[0], table.scores(columns), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_rows_of_several_pictures_one_after_the_other(batch: int | str, tmp_path: Path) -> None:
    frames = batch if isinstance(batch, int) else 3
    table = Table(7, rows=20)
    columns: list[str | int] = ["batch", "box", "label", "score"]
    values = table.table(columns, "xyxy", "pixels")
    values[:, 0] = picture = np.random.default_rng(1).integers(-1, frames, 20)
    net = planted(Net(WIDTH, HEIGHT, batch=batch), "out", values, [None, 7])
    boxes, scores = run(net, card({"format": "rows", "columns": columns}), tmp_path, frames=frames)
    assert boxes.shape == (frames, 20, 4)
    for n in range(frames):
        np.testing.assert_allclose(boxes[n], table.pixels(), atol=1e-3)
        np.testing.assert_allclose(scores[n], table.one_hot() * (picture == n)[:, None], atol=1e-6)


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.FLOAT])
@pytest.mark.parametrize("alone", [False, True])
def test_labels_in_an_output_of_their_own(kind: int, alone: bool, tmp_path: Path) -> None:
    table = Table(5)
    dets = table.table(["box", "score"], "xyxy", "pixels")
    net = Net(WIDTH, HEIGHT, batch=1)
    for name, values, its in (("dets", dets, TensorProto.FLOAT), ("labels", table.label + 1, kind)):
        values = values if alone else values[None]
        planted(net, name, values, list(values.shape), its)
    spec = {"format": "rows", "output": "dets", "columns": ["box", "score"], "labels": "labels"}
    for change, scores in (
        ({"first_label": 1}, table.one_hot()),
        ({"indices": [2, 9, 1]}, np.stack([table.one_hot()[:, 1], np.zeros(11), table.one_hot()[:, 0]], 1)),
    ):
        boxes, found = run(net, card(spec | change), tmp_path)
        np.testing.assert_allclose(boxes[0], table.pixels(), atol=1e-3)
        np.testing.assert_allclose(found[0], scores, atol=1e-6)


def test_one_class_needs_no_labels(tmp_path: Path) -> None:
    table = Table(6, classes=1)
    values = table.table(["box", "score"], "xyxy", "pixels")[None]
    net = planted(Net(WIDTH, HEIGHT, batch=1), "faces", values, list(values.shape))
    spec = {"format": "rows", "columns": ["box", "score"]}
    boxes, scores = run(net, card(spec, classes=1), tmp_path)
    np.testing.assert_allclose(boxes[0], table.pixels(), atol=1e-3)
    np.testing.assert_allclose(scores[0, :, 0], table.score, atol=1e-6)
    with pytest.raises(ModelError, match="one score a box, and several classes"):
        card(spec)


def test_detr_in_one_output_with_logits_and_a_background(tmp_path: Path) -> None:
    table = Table(8, classes=5)
    values = table.table(["box", "classes"], "cxcywh", "normalised")[None]
    net = planted(Net(WIDTH, HEIGHT, batch=1), "out", values, list(values.shape))
    spec = {
        "format": "rows", "columns": ["box", "classes"], "corners": "cxcywh", "coordinates": "normalised",
        "activation": "softmax",
    }  # fmt: skip
    powers = np.exp(table.matrix)
    soft = powers / powers.sum(1, keepdims=True)
    for change, classes, expected in (
        ({"background": -1}, 4, soft[:, :4]),
        ({"background": 0}, 4, soft[:, 1:]),
        ({"indices": [3, 1]}, 2, soft[:, [3, 1]]),
        ({"activation": "sigmoid"}, 5, 1 / (1 + np.exp(-table.matrix))),
    ):
        boxes, scores = run(net, card(spec | change, classes=classes), tmp_path)
        np.testing.assert_allclose(boxes[0], table.pixels(), atol=1e-3)
        np.testing.assert_allclose(scores[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("columns", "change", "words"),
    [
        (["box"], {}, "box, and either classes or score"),
        (["box", "classes", "score"], {}, "either classes or score"),
        (["score", "label"], {}, "needs box"),
        (["box", "box", "classes"], {}, "box more than once"),
        (["box", "classes", 0], {}, "greater than or equal to 1"),
        (["box", "classes", "mask"], {}, "columns"),
        (["box", "classes"], {"labels": "labels"}, "labels go with one score"),
        (["box", "score", "label"], {"labels": "labels"}, "either a column or an output"),
        (["box", "score", "label"], {"background": 0}, "belong to a score for each class"),
        (["box", "classes"], {"first_label": 1}, "first_label needs labels"),
        (["box", "classes"], {"background": 0, "indices": [0, 1, 2]}, "indices replace"),
    ],
)
def test_columns_that_make_no_detection(columns: list[Any], change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        card({"format": "rows", "columns": columns} | change)


@pytest.mark.parametrize(
    ("spec", "shape", "words"),
    [
        (
            {"format": "yolov10"},
            [1, 300, 38],
            ["4 + 1 score + 1 label", "[N, A, 6]", "columns: [box, score, label, 32]"],
        ),
        ({"format": "yolov8"}, [1, 39, 300], ["4 + 3 classes", "columns: [box, classes, 32]"]),
        ({"format": "yolov8"}, [1, 12, 300], ["are 5 names missing in detection.classes?"]),
        ({"format": "yolov5"}, [1, 300, 6], ["[N, A, 8]"]),
        ({"format": "yolov8", "columns_axis": "last"}, [1, 7, 30], ["[N, A, 7]"]),
        ({"format": "boxes_scores", "boxes": "out", "scores": "out"}, [1, 30, 5], ["format: rows"]),
    ],
)
def test_an_output_of_another_width(spec: dict[str, Any], shape: list[int], words: list[str]) -> None:
    net = planted(Net(WIDTH, HEIGHT, batch=1), "out", np.zeros(shape), shape)
    with pytest.raises(ModelError) as error:
        adapt_model(net.build(), card(spec), "theirs.onnx")
    for word in words:
        assert word in str(error.value)


def test_every_line_of_the_page_is_a_card() -> None:
    page = (Path(__file__).parents[2] / "docs" / "foreign.md").read_text(encoding="utf-8")
    lines = re.findall(r"\| `(\{format: .*?\})` \|", page)
    assert len(lines) >= 9
    for line in lines:
        assert card(yaml.safe_load(line)).adapter.detection is not None


# what the boxes of a trial picture tell of a wrong card

MISSING = "`coordinates: normalised` missing under adapter.detection"


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return lines


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [1, 11])
def test_boxes_that_cannot_be_of_the_picture_are_called_out(
    rows: int, engine: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for corners, coordinates, said, words in (
        ("cxcywh", "normalised", {"corners": "cxcywh"}, ["rows: ", "within 2 pixels of its corner", MISSING]),
        ("xyxy", "normalised", {}, ["within 2 pixels of its corner", MISSING]),
        ("cxcywh", "normalised", {}, ["within 2 pixels of its corner", MISSING]),
        ("xyxy", "pixels", {"coordinates": "normalised"}, ["outside of its 96x64 pixels", "normalised` is wrong"]),
        ("xyxy", "pixels", {}, []),
        ("cxcywh", "normalised", {"corners": "cxcywh", "coordinates": "normalised"}, []),
    ):
        table = Table(rows, rows=rows)
        values = np.zeros((1, 40, 7))  # the rest fills the output up
        values[0, :rows] = table.table(["box", "classes"], corners, coordinates)
        net = planted(Net(WIDTH, HEIGHT, batch=1), "out", values, [1, 40, 7])
        run(net, card({"format": "rows", "columns": ["box", "classes"]} | said), tmp_path, engine)
        lines = warned(caplog)
        assert len(lines) == bool(words)
        for word in words:
            assert word in lines[0] and "\n" not in lines[0]


def test_corners_that_leave_no_box_are_called_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.array([[[60, 40, 20, 10, 0.9, 0, 0], [50, 30, 40, 20, 0, 0.8, 0]]])  # centre and size
    net = planted(Net(WIDTH, HEIGHT, batch=1), "out", values, [1, 2, 7])
    spec = {"format": "rows", "columns": ["box", "classes"]}
    run(net, card(spec), tmp_path)
    (line,) = warned(caplog)
    assert "each of 2 boxes" in line and "is `corners` right under adapter.detection" in line
    boxes, _ = run(net, card(spec | {"corners": "cxcywh"}), tmp_path)
    np.testing.assert_allclose(boxes[0], [[50, 35, 70, 45], [30, 20, 70, 40]], atol=1e-4)
    assert not warned(caplog)


def test_an_output_without_boxes_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = planted(Net(WIDTH, HEIGHT, batch=1), "out", np.zeros((1, 20, 7)), [1, 20, 7])
    boxes, scores = run(net, card({"format": "yolov8"}), tmp_path)
    assert not boxes.any() and not scores.any()
    some = np.array([[[0.2, 0.2, 0.9, 0.9, 0.9, 0, 0], [10, 10, 30, 30, 0.9, 0, 0]]])  # one that is right
    net = planted(Net(WIDTH, HEIGHT, batch=1), "out", some, [1, 2, 7])
    run(net, card({"format": "rows", "columns": ["box", "classes"]}), tmp_path)
    assert not warned(caplog)


# recreated from reports

REPORTED: dict[str, dict[str, Any]] = {
    "detr-normalised": {
        "format": "rows", "columns": ["box", "classes"], "corners": "cxcywh", "coordinates": "normalised",
    },
    "dets-labels": {"format": "rows", "output": "dets", "columns": ["box", "score"], "labels": "labels"},
}  # fmt: skip


@pytest.mark.parametrize("name", REPORTED)
def test_a_reported_file_runs_by_its_card(name: str, tmp_path: Path) -> None:
    yaml_file, output = tmp_path / "card.yaml", tmp_path / "ours.onnx"
    yaml_file.write_text(yaml.safe_dump(data(REPORTED[name], size=(320, 320))))
    words = ["adapt", str(CASES / f"{name}.onnx"), "--card", str(yaml_file), "-o", str(output)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    for model_file in (output, CASES / f"{name}.onnx"):
        with load_model(model_file, card=None if model_file == output else yaml_file) as model:
            found = model.predict(np.zeros((320, 320, 3), np.uint8)).detections
        assert found is not None
        np.testing.assert_allclose(found.boxes, [[40, 40, 120, 120], [160, 100, 300, 220]], atol=0.01)
        assert found.class_ids.tolist() == [0, 2]


@pytest.mark.parametrize("spec", [{"format": "yolov8"}, {"format": "rows", "columns": ["box", "classes"]}])
def test_a_reported_file_under_another_card_is_called_out(
    spec: dict[str, Any], tmp_path: Path, main_here: Main
) -> None:
    yaml_file = tmp_path / "card.yaml"
    yaml_file.write_text(yaml.safe_dump(data(spec, size=(320, 320))))
    words = ["-m", str(CASES / "detr-normalised.onnx"), "--card", str(yaml_file), "--jsonl", "-"]
    done = main_here("annotate", "synthetic:?size=64x48&frames=2&fps=5", *words)
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "trial picture" in line]
    assert "rows: each of 2 boxes" in line and MISSING in line
