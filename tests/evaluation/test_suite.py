"""A suite: many sets and models in one table, against counting pixel by pixel; and all that can be wrong with it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

import perception
from perception.card import read_card
from perception.commands.main import app
from perception.errors import PerceptionError, SourceError, UsageError
from perception.evaluation.detection import evaluate_detection
from perception.evaluation.suite import open_suite, read_suite
from perception.evaluation.suite_result import evaluate_suite
from perception.weights.library import find_model
from tests.evaluation.scenes import add_box, write_boxes, write_labels
from tests.models import PALETTE, write_model

NAMES = list(PALETTE)
MASKS: dict[str, Any] = {"kind": "segmentation", "images": "masks/images", "labels": "masks/labels", "ignore": [11]}
BOXES: dict[str, Any] = {"kind": "detection", "images": "boxes/images", "annotations": "boxes/boxes.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder / "both.onnx", width=128, height=96, classes=4, detection=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_labels(folder / "masks", size=(128, 96), classes=4, seed=3)
    write_boxes(folder / "boxes", seed=4)
    return folder


def write_suite(path: Path, root: Path, *sets: dict[str, Any], **more: Any) -> Path:
    path.write_text(
        yaml.safe_dump({"name": "shapes", "root": str(root), "classes": NAMES[:4], "sets": list(sets), **more})
    )
    return path


def call(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def slow_iou(
    model: Path, folder: Path, truth_of: dict[int, str], names: list[str], stems: set[str] | None = None
) -> dict[str, float]:
    """IoU by name from single pixels: labels that ``truth_of`` does not name count for nothing."""
    hits, there, found = (dict.fromkeys(names, 0) for _ in range(3))
    with perception.load_model(model, engine="onnxruntime") as loaded:
        assert loaded.card.segmentation is not None
        of_model = dict(enumerate(loaded.card.segmentation.names))
        for path in sorted((folder / "images").iterdir()):
            if stems is not None and path.stem not in stems:
                continue
            class_map = loaded.predict(cv2.imread(str(path))).class_map
            assert class_map is not None
            labels = cv2.imread(str(folder / "labels" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
            for p, t in zip(class_map.mask.ravel().tolist(), labels.ravel().tolist(), strict=True):
                name = truth_of.get(t)
                if name not in names:
                    continue
                there[name] += 1
                guess = of_model.get(p)
                if guess in names:
                    found[guess] += 1
                hits[name] += guess == name
    return {n: hits[n] / (there[n] + found[n] - hits[n]) for n in names if there[n] + found[n]}


def one(result: Any, title: str, number: int = 0) -> Any:
    return result.models[number].sets[title]


def test_all_classes(tmp_path: Path, model: Path, data: Path) -> None:
    suite = read_suite(write_suite(tmp_path / "s.yaml", data, {"name": "plain", **MASKS}))
    accuracy = one(evaluate_suite([model], suite, precision="fp32"), "plain")
    expected = slow_iou(model, data / "masks", dict(enumerate(NAMES[:4])), NAMES[:4])
    assert accuracy.classes == pytest.approx(expected, abs=6e-5)
    assert accuracy.metrics["miou"] == pytest.approx(np.mean(list(expected.values())), abs=6e-5)
    assert accuracy.images == 6 and accuracy.kind == "segmentation"


@pytest.mark.parametrize("labelled", [["red", "blue"], ["green", "yellow", "blue"]])
def test_the_mean_is_over_the_classes_that_the_set_labels(
    tmp_path: Path, model: Path, data: Path, labelled: list[str]
) -> None:
    suite = read_suite(write_suite(tmp_path / "s.yaml", data, {"name": "some", **MASKS, "labelled": labelled}))
    accuracy = one(evaluate_suite([model], suite, precision="fp32"), "some")
    truth = {i: n for i, n in enumerate(NAMES[:4]) if n in labelled}
    expected = slow_iou(model, data / "masks", truth, labelled)
    assert accuracy.classes == pytest.approx(expected, abs=6e-5)
    assert accuracy.metrics["miou"] == pytest.approx(np.mean(list(expected.values())), abs=6e-5)


def test_ids_patterns_and_synonyms(tmp_path: Path, model: Path) -> None:
    folder = write_labels(tmp_path / "masks", size=(128, 96), images=6, seed=9)
    for path in (folder / "labels").iterdir():  # ids of another tool, and names of its own
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.array([70, 20, 200, 0, 0, 0, 0, 0, 0, 0, 0, 250], np.uint8)[labels])
    ids = {70: "rouge", 20: "green", 200: "blue"}
    suite = read_suite(
        write_suite(
            tmp_path / "s.yaml", tmp_path,
            {**MASKS, "name": "theirs", "ids": ids, "ignore": [250], "only": ["00[0-3]"], "exclude": ["*2"],
             "synonyms": {"rouge": ["red", "scarlet"]}},
        )
    )  # fmt: skip
    result = evaluate_suite([model], suite, precision="fp32")
    truth = {70: "red", 20: "green", 200: "blue"}
    expected = slow_iou(model, folder, truth, NAMES[:3], {"000", "001", "003"})
    found = dict(one(result, "theirs").classes)
    assert found == pytest.approx(expected, abs=6e-5)
    assert one(result, "theirs").images == 3


def test_boxes_are_those_of_eval_detection(tmp_path: Path, model: Path, data: Path) -> None:
    suite = read_suite(write_suite(tmp_path / "s.yaml", data, {"name": "boxes", **BOXES}))
    accuracy = one(evaluate_suite([model], suite, precision="fp32"), "boxes")
    alone = evaluate_detection(model, data / "boxes/images", data / "boxes/boxes.json", precision="fp32").as_dict()
    assert accuracy.metrics["map50"] == pytest.approx(alone["map50"], abs=6e-5)
    assert accuracy.metrics["map"] == pytest.approx(alone["map"], abs=6e-5)
    assert accuracy.classes == pytest.approx({n: v["ap50"] for n, v in alone["ap"].items()}, abs=6e-5)
    assert 0.2 < accuracy.metrics["map50"] < 0.99


def test_boxes_of_a_detector_count_neither_way(tmp_path: Path, model: Path) -> None:
    """Pictures where the only mistakes are about boxes that a detector made: without these there is none."""
    picture = np.full((96, 128, 3), 128, np.uint8)
    cells = {"red": (0, 0), "green": (32, 32), "blue": (64, 64), "yellow": (96, 16)}
    for name, (x, y) in cells.items():
        picture[y : y + 16, x : x + 16] = PALETTE[name][::-1]
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), picture)
    categories = [{"id": i, "name": n} for i, n in enumerate(cells)]
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    document["images"].append({"id": 100, "file_name": "a.png", "width": 128, "height": 96})
    for i, name in enumerate(["red", "green"]):
        add_box(document, 0, i, [*cells[name], 16, 16])
    add_box(document, 0, 0, [*cells["blue"], 16, 16])  # said to be red, by a detector
    document["annotations"][-1] |= {"score": 0.6, "pseudo": 1}
    add_box(document, 0, 1, [0, 60, 16, 16])  # where nothing is
    document["annotations"][-1] |= {"score": 0.99}
    (tmp_path / "b.json").write_text(json.dumps(document))
    given = {"kind": "detection", "name": "b", "images": "images", "annotations": "b.json"}

    def measure(**more: Any) -> Any:
        suite = read_suite(write_suite(tmp_path / "s.yaml", tmp_path, {**given, **more}))
        return one(evaluate_suite([model], suite, worst=1, precision="fp32"), "b")

    by_hand = measure(labelled=["red", "green"], min_score=1)
    assert by_hand.classes == {"red": 1.0, "green": 1.0}
    believed = measure(labelled=["red", "green"])
    assert believed.classes["red"] < 0.6 and believed.classes["green"] < 0.6
    # a blue box is wrong where blue is evaluated; on an ignored region it is not
    assert measure(min_score=1).classes == {"red": 1.0, "green": 1.0}
    renamed = measure(names={"red": "red"}, others="ignore", min_score=1)
    assert renamed.classes == {"red": 1.0}


def test_models_side_by_side(tmp_path: Path, model: Path, data: Path) -> None:
    masks_only = write_model(tmp_path / "masks.onnx", width=64, height=48, classes=["green", "red", "cyan"])
    path = write_suite(tmp_path / "s.yaml", data, {"name": "m", **MASKS}, {"name": "b", **BOXES})
    result = call("eval", "suite", path, "-m", model, "-m", masks_only, "--json", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.stdout)["models"]
    assert "OpenVINO" in first["engine"] and "fp32" in first["engine"]
    assert [s["set"] for s in first["sets"]] == ["m", "b"]
    assert [s["set"] for s in second["sets"]] == ["m"]
    assert second["sets"][0]["left_out"] == ["blue", "yellow"]
    # the ids in the labels are those of the suite, not of this model
    expected = slow_iou(masks_only, data / "masks", dict(enumerate(NAMES[:4])), ["red", "green"])
    assert second["sets"][0]["classes"] == pytest.approx(expected, abs=6e-5)
    shown = call("eval", "suite", path, "-m", model, "-m", masks_only, "--precision", "fp32")
    assert shown.exit_code == 0
    row = next(line for line in shown.stdout.splitlines() if "mAP50" in line)
    assert [cell.strip() for cell in row.split("│")[3:6]] == [
        "mAP50",
        f"{first['sets'][1]['metrics']['map50']:.3f}",
        "-",
    ]
    assert "m: masks does not have blue, yellow" in shown.stderr


def test_failures_cards_and_tables(tmp_path: Path, model: Path, data: Path) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes(model.read_bytes())
    path = write_suite(tmp_path / "s.yaml", data, {"name": "m a/b", **MASKS}, {"name": "b", **BOXES})
    command = ["eval", "suite", path, "-m", own, "--failures", tmp_path / "f", "--worst", 2, "--precision", "fp32"]
    measured = call(*command, "--store", "--markdown", "--json-file", tmp_path / "o.json")
    assert measured.exit_code == 0, measured.output
    pictures = sorted(p.relative_to(tmp_path / "f").as_posix() for p in (tmp_path / "f").rglob("*.png"))
    assert [p.rpartition("-")[0] for p in pictures] == ["own/b/01", "own/b/02", "own/m_a_b/01", "own/m_a_b/02"]
    # image, truth, prediction and mistakes, each of its own size in a row
    assert cv2.imread(str(tmp_path / "f" / pictures[2])).shape == (360, 4 * 480 + 3 * 4, 3)
    assert cv2.imread(str(tmp_path / "f" / pictures[0])).shape == (360, 3 * 480 + 2 * 4, 3)
    assert pictures[2].endswith("/01-005.png")  # the later, the worse
    again = call(*command)
    assert isinstance(again.exception, UsageError) and "not empty" in str(again.exception)
    assert call(*command, "--overwrite").exit_code == 0

    card = read_card(own)
    assert card.suite is not None and card.suite.name == "shapes"
    kept = [s.model_dump() for s in card.suite.sets]
    wanted = json.loads((tmp_path / "o.json").read_text())["models"][0]["sets"]
    assert [{**s, "left_out": []} for s in kept] == wanted
    printed = call("eval", "table", "-m", own, "--markdown")
    assert printed.stdout == measured.stdout
    head, rule, masks, boxes = printed.stdout.splitlines()
    assert head == "| set | pictures | accuracy | own | by class |" and rule.count("|") == head.count("|")
    assert masks.startswith(f"| m a/b | 6 | mIoU | {kept[0]['metrics']['miou']:.3f} | red 0.")
    assert boxes.startswith("| b | 8 | mAP50 | ")
    without = call("eval", "table", "-m", model)
    assert isinstance(without.exception, UsageError) and "holds no table" in str(without.exception)


def test_unknown_pixels_are_missed_and_held_against_nobody(tmp_path: Path, model: Path, data: Path) -> None:
    from perception.card import keep_in_card
    from perception.common.calibration import UnknownScale

    task = read_card(model).segmentation
    assert task is not None
    scale = UnknownScale(id=4, logits=[-100.0, 3.9, 100.0])
    sure = tmp_path / "sure.onnx"
    keep_in_card(model, sure, segmentation=task.model_copy(update={"unknown": scale}))
    suite = read_suite(write_suite(tmp_path / "s.yaml", data, {"name": "m", **MASKS}))
    plain, unsure = (one(evaluate_suite([sure], suite, precision="fp32", unknown=u), "m") for u in (0.0, 0.5))
    assert "unknown" not in plain.metrics and 0.1 < unsure.metrics["unknown"] < 0.9
    assert unsure.metrics["miou"] < plain.metrics["miou"]
    lost = one(evaluate_suite([sure], suite, precision="fp32", unknown=1.0), "m")
    assert lost.metrics["unknown"] == 1 and lost.metrics["miou"] == 0
    with pytest.raises(UsageError, match="eval calibrate"):
        evaluate_suite([model], suite, unknown=0.1)


FAULTS: list[tuple[list[dict[str, Any]], str]] = [
    ([{"name": "m", **MASKS, "images": "nowhere"}], "nowhere: no such folder"),
    ([{"name": "m", **MASKS, "labels": "nowhere"}], "nowhere: no such folder"),
    ([{"name": "b", **BOXES, "annotations": "nowhere.json"}], "nowhere.json: no such file"),
    ([{"name": "m", **MASKS}, {"name": "m", **MASKS}], "two sets are called m"),
    ([{"name": "m", **MASKS, "labelled": ["red", "gren"]}], "set m has no class 'gren'; did you mean 'green'?"),
    ([{"name": "m", **MASKS, "only": ["zzz*"]}], "no image of this folder was selected"),
    ([{"name": "m", **MASKS, "ignore": []}], r"unknown class ids \[11\]"),
    ([{"name": "m", **MASKS, "label": "x"}], r"sets.0.segmentation.label: .*did you mean 'labels'"),
    ([{"name": "m", **MASKS, "kind": "masks"}], "sets.0: .*segmentation"),
    ([{"name": "b", **BOXES, "labelled": ["red", "gren"]}], "has no class 'gren'; did you mean 'green'?"),
    ([{"name": "b", **BOXES, "names": {"rouge": "red"}, "others": "drop"}], "has no class 'rouge'"),
    ([{"name": "b", **BOXES, "names": {"red": "red"}}], "unknown class 'green', not in red"),
    ([{"name": "b", **BOXES, "only": ["zzz*"]}], "none of its images was selected"),
    (
        [{"name": "m", **MASKS, "ids": {0: "red"}}, {"name": "n", **MASKS, "ids": {0: "green"}}],
        "sets m and n contradict each other: id 0 of the same labels is red in one and green in the other",
    ),
    (
        [{"name": "a", **BOXES, "names": {"red": "red"}}, {"name": "b", **BOXES, "names": {"red": "green"}}],
        "sets a and b contradict each other: class red of the same labels is red in one and green in the other",
    ),
    ([], "sets: "),
]


@pytest.mark.parametrize(("sets", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_what_is_wrong_is_one_line_before_anything_runs(
    tmp_path: Path, data: Path, sets: list[dict[str, Any]], message: str
) -> None:
    path = write_suite(tmp_path / "s.yaml", data, *sets)
    result = call("eval", "suite", path, "-m", write_model(tmp_path / "m.onnx", detection=True))
    assert isinstance(result.exception, PerceptionError), result.output
    assert result.exception.exit_code == 2
    line = str(result.exception)
    assert "\n" not in line and result.stdout == ""
    with pytest.raises(PerceptionError, match=message):
        open_suite(read_suite(path))


def test_all_missing_sets_are_told_at_once(tmp_path: Path, data: Path) -> None:
    path = write_suite(
        tmp_path / "s.yaml",
        data,
        {"name": "a", **MASKS, "images": "none_a"},
        {"name": "b", **BOXES, "images": "none_b"},
    )
    with pytest.raises(SourceError, match=r"none_a.*none_b"):
        open_suite(read_suite(path))


def test_a_broken_picture_of_the_last_set_stops_all(tmp_path: Path, model: Path) -> None:
    write_labels(tmp_path / "masks", size=(128, 96))
    write_boxes(tmp_path / "boxes")
    broken = tmp_path / "boxes" / "images" / "3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    suite = read_suite(write_suite(tmp_path / "s.yaml", tmp_path, {"name": "m", **MASKS}, {"name": "b", **BOXES}))
    done: list[str] = []
    with pytest.raises(SourceError, match=r"3\.png.*cut short"):
        evaluate_suite([model], suite, progress=lambda what, *_: done.append(what))
    assert not any(" on " in what for what in done)  # nothing was measured


def test_a_model_without_anything_in_common_and_two_of_one_name(tmp_path: Path, model: Path, data: Path) -> None:
    suite = read_suite(write_suite(tmp_path / "s.yaml", data, {"name": "m", **MASKS}))
    other = write_model(tmp_path / "other.onnx", classes=["cyan", "white", "black"])
    with pytest.raises(UsageError, match="other has nothing in common"):
        evaluate_suite([model, other], suite)
    (tmp_path / "sub").mkdir()
    twin = tmp_path / "sub" / model.name
    twin.write_bytes(model.read_bytes())
    with pytest.raises(UsageError, match="two models are called both"):
        evaluate_suite([model, twin], suite)


def test_the_suite_that_ships_says_what_the_recipe_says() -> None:
    root = Path(__file__).parents[2]
    suite = read_suite(root / "configs" / "suites" / "street.yaml")
    recipe = yaml.safe_load((root / "configs" / "train" / "street.yaml").read_text())
    cities = next(s for s in suite.sets if s.title == "cities")
    (dev,) = recipe["data"]["dev"]
    assert (cities.only, getattr(cities, "labelled")) == (dev["only"], dev["labelled"])  # noqa: B009
    boxes = next(s for s in suite.sets if s.title == "openimages")
    assert boxes.only == recipe["detection"]["dev"][0]["only"]
    assert suite.classes == read_card(find_model("street")).segmentation.names  # type: ignore[union-attr]
    assert not math.isnan(boxes.min_score) and boxes.min_score == 1  # type: ignore[union-attr]
