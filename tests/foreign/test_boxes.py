"""Foreign detectors: what the rewritten graph gives, against the foreign graph itself and a slow decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from perception import ModelError
from perception.card import validate_card
from perception.common import hardware
from perception.engines import open_engine
from perception.foreign.adapt import adapt_model
from perception.foreign.adapter import ForeignCard
from tests.foreign import graphs
from tests.foreign.graphs import Net
from tests.noise import noise_frames

INPUT = {"channels": "RGB", "scale": "1/255", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
SCALED = {"scale": 1 / 255, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "channels": "RGB", "layout": "NCHW"}


def card(detection: dict[str, Any], size: tuple[int, int] = (64, 48), **image: Any) -> ForeignCard:
    width, height = size
    data = {
        "name": "foreign", "licence": "MIT", "input": {"width": width, "height": height},
        "detection": {"classes": ["car", "bus", "person"]},
        "adapter": {"input": INPUT | image, "detection": detection},
    }  # fmt: skip
    return validate_card(data, "card.yaml", ForeignCard)


def foreign_outputs(path: Path, frame: np.ndarray, **image: Any) -> dict[str, np.ndarray]:
    """What the graph itself says of one frame, batch axis kept."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    prepared = graphs.prepare(frame, **(SCALED | image))
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: prepared}), strict=True))


def run_adapted(path: Path, described: ForeignCard, frames: np.ndarray, engine: str) -> dict[str, np.ndarray]:
    import onnx

    finished = path.with_suffix(".adapted.onnx")
    onnx.save(adapt_model(onnx.load(str(path)), described, path), str(finished))
    with open_engine(finished, described.native(), engine=engine, precision="fp32") as opened:
        return opened.infer(frames)


def compare(results: dict[str, np.ndarray], index: int, expected: graphs.Decoded) -> None:
    boxes = np.array([box for box, _ in expected])
    scores = np.array([score for _, score in expected])
    assert results["boxes"].shape[1:] == boxes.shape and results["scores"].shape[1:] == scores.shape
    np.testing.assert_allclose(results["boxes"][index], boxes, atol=2e-3, rtol=1e-4)
    np.testing.assert_allclose(results["scores"][index], scores, atol=1e-4)
    assert scores.std() > 0.05 and boxes.std() > 5  # the comparison means something


def yolox(raw: dict[str, np.ndarray]) -> graphs.Decoded:
    return graphs.decode_yolox(raw["output"][0], 64, 48)


def yolov5(raw: dict[str, np.ndarray]) -> graphs.Decoded:
    return graphs.decode_rows(raw["output0"][0], objectness=True)


def yolov8(raw: dict[str, np.ndarray]) -> graphs.Decoded:
    return graphs.decode_rows(raw["output0"][0].T, objectness=False)


def yolov8_rows(raw: dict[str, np.ndarray]) -> graphs.Decoded:
    return graphs.decode_rows(raw["output0"][0], objectness=False)


def yolov10(raw: dict[str, np.ndarray]) -> graphs.Decoded:
    rows = raw["output0"][0]
    assert set(rows[:, 5]) == {0, 1, 2}
    return graphs.decode_labelled(rows[:, :4], rows[:, 4], rows[:, 5], 3, 0)


def scaled(raw: dict[str, np.ndarray], corners: str, scores: Callable[[list[float]], list[float]]) -> graphs.Decoded:
    """Normalised boxes in the order ``corners``, and what ``scores`` makes of each row."""
    found = []
    for box, row in zip(raw["boxes"].reshape(-1, 4).tolist(), scores_of(raw), strict=True):
        left, top, right, bottom = graphs.corner_box(box, corners)
        found.append(([left * 64, top * 48, right * 64, bottom * 48], scores(row)))
    return found


def scores_of(raw: dict[str, np.ndarray]) -> list[list[float]]:
    values = raw["scores"]
    rows = values[0] if values.ndim == 3 else values
    return (rows.T if len(rows) < 10 else rows).astype(float).tolist()


def labelled(raw: dict[str, np.ndarray]) -> graphs.Decoded:
    boxes = raw["detection_boxes"].reshape(-1, 4)
    boxes = np.array([graphs.corner_box(b, "yxyx") for b in boxes.tolist()]) * [64, 48, 64, 48]
    labels = raw["detection_classes"].reshape(-1)
    assert set(labels.tolist()) == {0, 1, 2, 3}  # 0 is no class of the card
    return graphs.decode_labelled(boxes, raw["detection_scores"].reshape(-1), labels, 3, 1)


SSD = {"format": "boxes_scores", "coordinates": "normalised"}
TENSORFLOW = {
    "format": "boxes_scores", "boxes": "detection_boxes", "scores": "detection_scores", "labels": "detection_classes",
    "corners": "yxyx", "coordinates": "normalised", "first_label": 1,
}  # fmt: skip
CASES: dict[str, tuple[Callable[[Net], Net], dict[str, Any], Callable[[dict[str, np.ndarray]], graphs.Decoded]]] = {
    "yolox": (graphs.yolox, {"format": "yolox", "strides": [8, 16]}, yolox),
    "yolov5": (graphs.yolov5, {"format": "yolov5", "output": "output0"}, yolov5),
    "yolov8": (graphs.yolov8, {"format": "yolov8"}, yolov8),
    "yolov8-rows": (lambda net: graphs.yolov8(net, transposed=True), {"format": "yolov8"}, yolov8_rows),
    "yolov10": (graphs.yolov10, {"format": "yolov10"}, yolov10),
    "retinanet": (graphs.boxes_scores, SSD, lambda raw: scaled(raw, "xyxy", list)),
    "second axis, xywh": (
        lambda net: graphs.boxes_scores(net, second=True, extra_axis=True),
        SSD | {"corners": "xywh", "classes_axis": "second"},
        lambda raw: scaled(raw, "xywh", list),
    ),
    "ssd, background first": (
        lambda net: graphs.boxes_scores(net, columns=4, squash=False),
        SSD | {"activation": "softmax", "background": 0},
        lambda raw: scaled(raw, "xyxy", lambda row: graphs.softmax(row)[1:]),
    ),
    "background between": (
        lambda net: graphs.boxes_scores(net, columns=4),
        SSD | {"background": 2},
        lambda raw: scaled(raw, "xyxy", lambda row: [*row[:2], row[3]]),
    ),
    "without a batch": (
        lambda net: graphs.boxes_scores(net, columns=4, batchless=True, second=True),
        SSD | {"background": -1, "classes_axis": "second"},
        lambda raw: scaled(raw, "xyxy", lambda row: row[:3]),
    ),
    "rt-detr": (
        lambda net: graphs.boxes_scores(net, squash=False),
        {"format": "detr", "boxes": "boxes", "scores": "scores"},
        lambda raw: scaled(raw, "cxcywh", lambda row: [graphs.sigmoid(v) for v in row]),
    ),
    "detr": (
        lambda net: graphs.boxes_scores(net, columns=4, squash=False),
        {"format": "detr", "boxes": "boxes", "scores": "scores", "activation": "softmax", "background": -1},
        lambda raw: scaled(raw, "cxcywh", lambda row: graphs.softmax(row)[:3]),
    ),
    "tensorflow": (graphs.labelled, TENSORFLOW, labelled),
    "tensorflow, gaps": (
        graphs.labelled,
        {key: value for key, value in TENSORFLOW.items() if key != "first_label"} | {"indices": [3, 0, 2]},
        lambda raw: [(box, [scores[2], 0.0 if any(scores) else score, scores[1]]) for (box, scores), score in zip(
            labelled(raw), raw["detection_scores"].reshape(-1).tolist(), strict=True)],
    ),
    "columns chosen": (
        lambda net: graphs.boxes_scores(net, columns=5),
        SSD | {"indices": [4, 1, 2]},
        lambda raw: scaled(raw, "xyxy", lambda row: [row[4], row[1], row[2]]),
    ),
    "float labels": (lambda net: graphs.labelled(net, dtype=TensorProto.FLOAT), TENSORFLOW, labelled),
    "labels without a batch": (lambda net: graphs.labelled(net, batchless=True), TENSORFLOW, labelled),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_decoding_in_the_graph_is_slow_decoding(case: str, tmp_path: Path) -> None:
    build, detection, decode = CASES[case]
    alone = "without a batch" in case
    for seed, engine in enumerate(("openvino", "onnxruntime", "torch")):
        net = build(Net(seed=seed, batch=1 if alone else "batch"))
        path = net.write(tmp_path / f"{engine}.onnx")
        frames = noise_frames(1 if alone else 3, seed=seed)
        results = run_adapted(path, card(detection), frames, engine)
        assert set(results) == {"boxes", "scores"}
        for index, frame in enumerate(frames):
            compare(results, index, decode(foreign_outputs(path, frame)))


def test_boxes_in_pixels_stay_as_they_are(tmp_path: Path) -> None:
    path = graphs.boxes_scores(Net()).write(tmp_path / "m.onnx")
    (frame,) = noise_frames(1)
    results = run_adapted(path, card({"format": "boxes_scores"}), frame[None], "onnxruntime")
    np.testing.assert_allclose(results["boxes"], foreign_outputs(path, frame)["boxes"], atol=1e-6)


@pytest.mark.skipif(not any("bf16" in k and v for k, v in (hardware.cpu_features() or {}).items()), reason="no bf16")
def test_bf16_inside_does_not_move_boxes_by_pixels(tmp_path: Path) -> None:
    # At 640 a coordinate in bf16 is exact to 2 pixels; only the offsets before decoding may be as rough.
    path = graphs.yolox(Net(640, 640), (8, 16, 32)).write(tmp_path / "m.onnx")
    described = card({"format": "yolox"}, size=(640, 640))
    frames = noise_frames(1, 640, 640)
    exact = run_adapted(path, described, frames, "openvino")["boxes"]
    with open_engine(
        path.with_suffix(".adapted.onnx"), described.native(), engine="openvino", precision="bf16"
    ) as engine:
        rough = engine.infer(frames)["boxes"]
    assert engine.precision == "bf16"
    centre = [(b[..., :2] + b[..., 2:]) / 2 for b in (exact, rough)]
    error = np.abs(centre[0] - centre[1])[0, :6400]  # stride 8
    as_bf16 = (centre[0].view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert np.abs(centre[0] - as_bf16).max() > 1.9
    assert error.max() < 0.7 and error.mean() < 0.1


FAULTS: list[tuple[Callable[[Net], Net], dict[str, Any], list[str]]] = [
    (graphs.yolox, {"format": "yolox", "strides": [16]}, ["has 60 rows", "[16] has 12"]),
    (graphs.yolox, {"format": "yolox", "strides": [8, 10]}, ["64x48", "stride 10"]),
    (graphs.yolox, {"format": "yolox", "output": "boxes"}, ["no output 'boxes'", "adapter.detection.output"]),
    (graphs.yolov8, {"format": "yolov5"}, ["[N, A, 8]", "4 + 1 objectness + 3 classes"]),
    (graphs.yolov5, {"format": "yolov8"}, ["4 + 3 classes"]),
    (graphs.yolov5, {"format": "yolov10"}, ["[N, A, 6]"]),
    (graphs.boxes_scores, {"format": "yolov8"}, ["2 outputs", "adapter.detection.output"]),
    (graphs.boxes_scores, {"format": "detr"}, ["no output 'pred_boxes'"]),
    (graphs.boxes_scores, {"format": "boxes_scores", "background": 0}, ["3 classes + background"]),
    (graphs.boxes_scores, {"format": "boxes_scores", "classes_axis": "second"}, ["second axis"]),
    (graphs.boxes_scores, {"format": "boxes_scores", "boxes": "scores"}, ["boxes are [N, K, 4]"]),
    (graphs.boxes_scores, {"format": "boxes_scores", "labels": "scores"}, ["[N, K]"]),
    (lambda net: graphs.boxes_scores(net, columns=4), {"format": "boxes_scores", "background": 4}, ["background is 4"]),
    (graphs.boxes_scores, {"format": "boxes_scores", "indices": [0, 1, 3]}, ["go up to 3", "3 columns"]),
    (graphs.labelled, {"format": "boxes_scores", "boxes": "detection_boxes", "scores": "detection_scores"}, ["labels"]),
]  # fmt: skip


@pytest.mark.parametrize(("build", "detection", "words"), FAULTS)
def test_a_card_of_another_graph(
    build: Callable[[Net], Net], detection: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as error:
        adapt_model(build(Net()).build(), card(detection), tmp_path / "theirs.onnx")
    message = str(error.value)
    for word in [*words, "theirs.onnx", "inputs images float32 [?, 3, 48, 64]", "outputs"]:
        assert word in message, message


def test_a_format_for_one_size_takes_no_other() -> None:
    described = card({"format": "yolox"})
    free = described.model_copy(update={"input": described.input.model_copy(update={"multiple": 16})})
    with pytest.raises(ModelError, match=r"input\.multiple"):
        adapt_model(graphs.yolox(Net(size=("h", "w")), (16,)).build(), free, "m.onnx")
