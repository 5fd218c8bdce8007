"""Models by name and by path, and what they see in frames whose colours say the answer."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from perception import EngineError, ModelError, UsageError, load_model
from perception.card import read_card, write_card
from perception.model import Model
from perception.postprocess.post_processing import DetectionOptions
from perception.sources.synthetic.source import SyntheticSource
from perception.types import Detections, Frame
from perception.weights.library import find_model, list_models
from tests.models import PALETTE, build_model, solid, write_model

GRAY = 128


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's models and caches out of it; returns the folder of the user's models."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    monkeypatch.setattr("perception.engines.cache.compiled_models_dir", lambda engine: tmp_path / "cache" / engine)
    return tmp_path / "data" / "models"


def colors(tmp_path: Path, options: dict[str, Any] | None = None, **model: Any) -> Model:
    return load_model(write_model(tmp_path / "colors.onnx", **model), **{"precision": "fp32"} | (options or {}))


def squares(*places: tuple[str, int, int], width: int = 64, height: int = 48) -> np.ndarray:
    """A gray frame with squares of 16x16 pixels of palette colours, each at (x, y)."""
    image = np.full((height, width, 3), GRAY, np.uint8)
    for name, x, y in places:
        image[y : y + 16, x : x + 16] = PALETTE[name][::-1]
    return image


def test_class_map_of_solid_frames(tmp_path: Path) -> None:
    with colors(tmp_path, classes=4) as model:
        for class_id, name in enumerate(list(PALETTE)[:4]):
            prediction = model.predict(solid(name, 200, 100))
            assert prediction.class_map is not None
            assert prediction.class_map.mask.shape == (100, 200)
            assert (prediction.class_map.mask == class_id).all()
            assert prediction.class_map.shares[class_id] == 1
            assert prediction.detections is None and prediction.labels is None


def test_class_map_of_a_scene_lies_where_the_colors_lie(tmp_path: Path) -> None:
    image = np.empty((96, 128, 3), np.uint8)
    image[:48], image[48:] = PALETTE["blue"][::-1], PALETTE["green"][::-1]
    image[:, 96:] = PALETTE["red"][::-1]
    with colors(tmp_path) as model:
        class_map = model.predict(image).class_map
    assert class_map is not None
    truth = np.full((96, 128), 2)
    truth[48:] = 1
    truth[:, 96:] = 0
    inside = np.ones_like(truth, bool)  # away from edges, where cells are interpolated
    inside[44:52] = inside[:, 92:100] = False
    np.testing.assert_array_equal(class_map.mask[inside], truth[inside])


def test_frames_are_carried_and_timed(tmp_path: Path) -> None:
    frame = Frame(solid("red"), index=7, time=0.28, source="a.mp4")
    with colors(tmp_path) as model:
        prediction = model.predict(frame)
    assert prediction.frame is frame
    assert set(prediction.timings) == {"resize", "infer", "postprocess"}
    assert all(0 <= ms < 60_000 for ms in prediction.timings.values())


def test_boxes_in_frame_pixels(tmp_path: Path) -> None:
    image = np.kron(squares(("red", 0, 0), ("blue", 48, 16)), np.ones((3, 2, 1), np.uint8))  # 128x144
    with colors(tmp_path, detection=True, segmentation=False) as model:
        found = model.predict(image).detections
    assert found is not None
    boxes = {int(c): b for c, b in zip(found.class_ids, found.boxes, strict=True)}
    assert len(found) == 2 and set(boxes) == {0, 2}
    np.testing.assert_allclose(boxes[0], [0, 0, 32, 48], atol=1e-3)
    np.testing.assert_allclose(boxes[2], [96, 48, 128, 96], atol=1e-3)
    assert found.scores.dtype == np.float32 and (found.scores > 0.95).all()


def test_boxes_through_a_letterbox(tmp_path: Path) -> None:
    frame = np.full((64, 64, 3), GRAY, np.uint8)  # becomes 48x48, with 8 columns of padding on either side
    frame[:] = PALETTE["red"][::-1]
    with colors(tmp_path, detection=True, resize="letterbox") as model:
        prediction = model.predict(frame)
    assert prediction.class_map is not None and prediction.detections is not None
    assert (prediction.class_map.mask == 0).all()  # no padding in it
    boxes = prediction.detections.boxes
    # the two inner columns of anchors are all red: input x of 16..32 and 32..48 are frame x of 10.67..32 and 32..53.33
    inner = boxes[prediction.detections.scores > 0.95]
    expected = [[x, y, x + 64 / 3, y + 64 / 3] for x in (32 / 3, 32) for y in (0, 64 / 3, 128 / 3)]
    np.testing.assert_allclose(sorted(inner.tolist()), expected, atol=1e-3)


def test_suppression_options(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx", detection=True)  # each square has two boxes, of IoU 0.9

    def found(**options: Any) -> list[float]:
        with load_model(path, precision="fp32", **options) as model:
            detections = model.predict(squares(("red", 16, 16))).detections
            assert detections is not None
            return [round(float(s), 2) for s in detections.scores]

    assert found() == [0.98]
    assert found(iou_threshold=0.95) == [0.98, 0.88]
    assert found(iou_threshold=0.95, max_detections=1) == [0.98]
    assert found(score_threshold=0.99) == []
    assert found(score_threshold=0.05, nms="soft-linear") == [0.98, 0.09]  # 0.884 * (1 - 0.9)
    assert found(score_threshold=0.05, nms="soft-gaussian") == [0.98, 0.17]  # 0.884 * exp(-0.9 ** 2 / 0.5)


def test_options_as_one_object_and_by_name(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx", detection=True)

    def count(*, options: DetectionOptions | None = None, **by_name: Any) -> int:
        with load_model(path, precision="f32", options=options, **by_name) as model:
            detections = model.predict(squares(("red", 16, 16))).detections
            assert detections is not None
            return len(detections)

    loose = DetectionOptions(iou_threshold=0.95)
    assert count(options=loose) == count(iou_threshold=0.95) == 2
    assert count(options=loose, max_detections=1) == 1
    assert count(options=DetectionOptions(iou_threshold=0.95, max_detections=1), max_detections=2) == 2
    with pytest.raises(TypeError, match=r"has no argument 'score_treshold'; did you mean 'score_threshold'"):
        load_model(path, score_treshold=0.4)
    with pytest.raises(FrozenInstanceError):
        loose.classes = ("red",)  # type: ignore[misc]


def test_thresholds_by_class(tmp_path: Path) -> None:
    image = squares(("red", 0, 0), ("green", 32, 0), ("blue", 48, 32))
    thresholds = {"score_threshold": {"red": 0.99, "blue": 0.5}}
    with colors(tmp_path, thresholds, detection=True) as model:
        found = model.predict(image).detections
    assert found is not None and sorted(found.class_ids.tolist()) == [1, 2]


def test_classes_agnostic(tmp_path: Path) -> None:
    image = squares()
    image[16:32, 16:32] = (0, 128, 128)  # between red and green: a box of either
    low = {"score_threshold": 1e-5, "classes": ["red", "green"]}
    path = write_model(tmp_path / "colors.onnx", detection=True)
    card = read_card(path)
    assert card.detection is not None and not card.detection.class_agnostic
    agnostic_card = card.model_copy(update={"detection": card.detection.model_copy(update={"class_agnostic": True})})
    kept = []
    for says, agnostic in ((card, None), (card, True), (agnostic_card, None), (agnostic_card, False)):
        model_file = onnx.load(str(path))
        write_card(model_file, says)
        onnx.save(model_file, str(path))
        with load_model(path, precision="fp32", class_agnostic=agnostic, **low) as model:  # type: ignore[arg-type]
            found = model.predict(image).detections
            assert found is not None
            here = (np.abs(found.boxes - [16, 16, 32, 32]) < 0.01).all(1)
            kept.append(sorted(found.class_ids[here].tolist()))
    assert kept[0] == kept[3] == [0, 1]
    assert len(kept[1]) == len(kept[2]) == 1


def test_only_some_classes(tmp_path: Path) -> None:
    image = squares(("red", 0, 0), ("green", 32, 0), ("blue", 48, 32))
    with colors(tmp_path, {"classes": ["blue", "red"]}, detection=True, classification=True, ignored=[2]) as model:
        prediction = model.predict(image)
    assert prediction.detections is not None and sorted(prediction.detections.class_ids.tolist()) == [0, 2]
    assert prediction.class_map is not None and prediction.class_map.ignored == (1, 2)
    assert prediction.labels is not None and [i for i, _ in prediction.labels if i == 1] == []


def test_labels(tmp_path: Path) -> None:
    with colors(tmp_path, segmentation=False, classification=True, classes=8) as model:
        labels = model.predict(solid("blue")).labels
    assert labels is not None and len(labels) == 5
    assert labels[0][0] == 2 and labels[0][1] > 0.9
    assert [p for _, p in labels] == sorted((p for _, p in labels), reverse=True)


def test_threads_do_not_mix_their_frames(tmp_path: Path) -> None:
    names = [list(PALETTE)[i % 3] for i in range(60)]
    with colors(tmp_path, {"mode": "throughput"}, detection=True) as model, ThreadPoolExecutor(6) as pool:
        predictions = list(pool.map(lambda name: model.predict(solid(name)), names))
    for name, prediction in zip(names, predictions, strict=True):
        class_id = list(PALETTE).index(name)
        assert prediction.class_map is not None and prediction.detections is not None
        assert (prediction.class_map.mask == class_id).all()
        assert set(prediction.detections.class_ids.tolist()) == {class_id}


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 1), (64, 48), (641, 359), (7680, 16)])
def test_frames_of_any_size(width: int, height: int, tmp_path: Path) -> None:
    with colors(tmp_path, detection=True) as model:
        model.warmup(width, height)
        prediction = model.predict(solid("green", width, height))
    assert prediction.class_map is not None and prediction.detections is not None
    assert prediction.class_map.mask.shape == (height, width)
    assert (prediction.class_map.mask == 1).all()
    assert (prediction.detections.boxes[:, 2] <= width).all() and (prediction.detections.boxes[:, 3] <= height).all()


def test_sizes_that_the_card_allows(tmp_path: Path) -> None:
    with colors(tmp_path, {"size": (96, 32)}, multiple=16) as model:
        assert model.size == (96, 32)
        class_map = model.predict(solid("blue", 50, 50)).class_map
        assert class_map is not None and class_map.logits.shape == (3, 8, 24)
        assert (class_map.mask == 2).all()
    with pytest.raises(UsageError, match="multiples of 16, not 100x32; try 96x32"):
        colors(tmp_path, {"size": (100, 32)}, multiple=16)
    with pytest.raises(UsageError, match="64x48 only"):
        colors(tmp_path, {"size": (96, 32)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 1.5}, "score_threshold must be in 0..1"),
        ({"score_threshold": float("nan")}, "score_threshold must be in 0..1"),
        ({"score_threshold": {"red": 2}}, "score_threshold of red"),
        ({"score_threshold": {"gren": 0.5}}, "did you mean 'green'"),
        ({"iou_threshold": -0.1}, "iou_threshold"),
        ({"max_detections": 0}, "max_detections"),
        ({"classes": ["blu"]}, "no class 'blu'; did you mean 'blue'"),
        ({"classes": ["zebra"]}, "known are: red, green, blue"),
        ({"nms": "hard"}, "soft-gaussian"),
        ({"engine": "onnx"}, "onnxruntime"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        colors(tmp_path, options, detection=True)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), "an image must be a uint8 array"),
        (np.zeros((4, 4, 4), np.uint8), "an image must be a uint8 array"),
        (np.zeros((4, 4, 3), np.float32), "an image must be a uint8 array"),
        (np.zeros((0, 4, 3), np.uint8), "the image is empty: 4x0"),
        ([[1, 2, 3]], "an image must be a uint8 array"),
    ],
    ids=["gray", "alpha", "float", "empty", "list"],
)
def test_images_that_are_none(image: Any, message: str, tmp_path: Path) -> None:
    with colors(tmp_path) as model, pytest.raises(UsageError, match=message):
        model.predict(image)


def test_rows_need_not_touch(tmp_path: Path) -> None:
    image = np.concatenate([solid("red"), solid("green")], 1)
    with colors(tmp_path) as model:
        class_map = model.predict(image[::2, :64]).class_map
        assert class_map is not None and (class_map.mask == 0).all()


def test_closed(tmp_path: Path) -> None:
    model = colors(tmp_path)
    model.close()
    model.close()
    with pytest.raises(EngineError, match="closed"):
        model.predict(solid("red"))


def test_names(own_folders: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shipped = {model.name for model in list_models()}
    own_folders.mkdir(parents=True)
    path = write_model(own_folders / "colors.onnx", name="colors")
    (own_folders / "broken.onnx").write_bytes(b"not a model")
    with caplog.at_level(logging.WARNING, "perception"):
        models = {model.name: model for model in list_models()}
    assert set(models) == shipped | {"colors"}
    assert "broken.onnx" in caplog.text
    assert models["colors"].path == path and models["colors"].size_bytes == path.stat().st_size
    assert models["colors"].card.tasks == ["segmentation"]
    assert find_model("colors") == path
    with load_model("colors", precision="fp32") as model:
        assert model.card.name == "colors"
    with pytest.raises(ModelError, match="no model is called 'colours'; did you mean colors"):
        load_model("colours")
    with pytest.raises(ModelError, match=r"no model is called 'zzz'.*colors"):
        load_model("zzz")


@pytest.mark.parametrize("name", ["nowhere/model.onnx", "model.onnx", Path("model")])
def test_paths_that_are_not_there(name: str | Path) -> None:
    with pytest.raises(ModelError, match=r"model.*no such model file"):
        load_model(name)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256)) * 9])
def test_files_that_are_not_models(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "page.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"page\.onnx: not an ONNX file"):
        load_model(path)


def test_a_download_that_was_cut_short(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "part.onnx"
    for size in (len(whole) // 3, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises((ModelError, EngineError), match=r"part\.onnx"):
            load_model(path)


def test_a_foreign_file_with_a_card_of_yaml(tmp_path: Path) -> None:
    path = write_model(tmp_path / "foreign.onnx", with_card=False)
    with pytest.raises(ModelError, match=r"foreign\.onnx: no model card.*card=FILE.*'frames'.*'class_logits'"):
        load_model(path)
    own = tmp_path / "own.onnx"
    onnx.save(build_model(), str(own))
    card = tmp_path / "card.yaml"
    card.write_text(yaml.safe_dump(read_card(own).model_dump(mode="json", exclude_none=True)))
    with load_model(path, card=card, precision="fp32") as model:
        class_map = model.predict(solid("green")).class_map
        assert class_map is not None and (class_map.mask == 1).all()


def test_models_with_options_share_an_engine_and_differ_in_what_they_make_of_it(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", detection=True)
    frame = squares(("red", 16, 16))
    with load_model(path) as model:
        strict = model.with_options(DetectionOptions(score_threshold=0.999999))
        loose = model.with_options(DetectionOptions(iou_threshold=1.0))
        green = model.with_options(DetectionOptions(classes=["green"]))
        assert strict.engine is loose.engine is model.engine
        inference = model.infer(frame)
        assert len(model.interpret(inference).detections) == 1
        assert len(strict.interpret(inference).detections) == 0
        assert len(green.interpret(inference).detections) == 0
        # Nothing is suppressed at an IoU of 1: the anchor and its narrower twin both stay. The same as by predict.
        both = loose.interpret(inference).detections
        assert len(both) == 2
        np.testing.assert_array_equal(both.boxes, loose.predict(frame).detections.boxes)
        loose.close()
        assert len(model.predict(frame).detections) == 1
        with pytest.raises(UsageError, match="no class 'grene'"):
            model.with_options(DetectionOptions(classes=["grene"]))


def test_a_threshold_moves_no_box_of_the_model_that_ships() -> None:
    pictures = [frame for seed in range(4) for frame in islice(SyntheticSource((640, 360), seed=seed), 2)]
    with load_model("street-open") as model:
        task = model.card.detection
        assert task is not None and task.vote_iou is not None
        several = 0
        for picture in pictures:
            inference = model.infer(picture)
            for agnostic in (True, False):

                def found(threshold: float | dict[str, float], agnostic: bool = agnostic) -> Detections:
                    options = DetectionOptions(
                        score_threshold=threshold, class_agnostic=agnostic, max_detections=30_000
                    )
                    detections = model.with_options(options).interpret(inference).detections  # noqa: B023
                    assert detections is not None
                    return detections

                low = found(0.01)
                for threshold in (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.6):
                    expected = low.select(low.scores >= np.float32(threshold))
                    several += len(expected) > 1
                    assert_same(found(threshold), expected)
                    few = {name: threshold if i % 2 else 0.01 for i, name in enumerate(task.names)}
                    own = np.array([few[name] for name in task.names], np.float32)
                    assert_same(found(few), low.select(low.scores >= own[low.class_ids]))
        assert several > 20


def assert_same(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
