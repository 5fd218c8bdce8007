"""Masks made by other people's networks: agreement of views and teachers, boxes, resuming, faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from perception.errors import ModelError, SourceError, UsageError
from perception.training.pseudo_labels.label import make_labels
from perception.training.pseudo_labels.recipe import read_labels_recipe
from perception.training.pseudo_labels.record import RECORD, check_labels

SIDE = 64
CLASSES = ["sky", "road", "car"]


def teacher(path: Path, flip: bool = False) -> Path:
    """A network that calls a pixel by its strongest channel of RGB; with ``flip``, by that of the mirrored place."""
    nodes = [helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT)]
    if flip:
        starts = [[SIDE - 1], [-SIDE - 1], [2], [-1]]
        names = ["starts", "ends", "axes", "steps"]
        nodes += [
            helper.make_node("Constant", [], [n], value=helper.make_tensor(n, TensorProto.INT64, [1], v))
            for n, v in zip(names, starts, strict=True)
        ]
        nodes.append(helper.make_node("Slice", ["x", *names], ["y"]))
    nodes.append(helper.make_node("ArgMax", ["y" if flip else "x"], ["ids"], axis=3, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, SIDE, SIDE])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "images").mkdir()
    return {
        "root": str(tmp_path),
        "classes": CLASSES,
        "min_region": 0,
        "margin": 0,
        "teachers": [
            {
                "model": str(teacher(tmp_path / "rgb.onnx")),
                "licence": "MIT",
                "size": [SIDE, SIDE],
                "classes": ["red", "green", "blue"],
                "ids": {"red": "car", "green": "road", "blue": "sky"},
            }
        ],
        "sets": [{"images": "images", "output": str(tmp_path / "labels")}],
    }


def run(recipe: dict[str, Any], overwrite: bool = False) -> list[Any]:
    path = Path(recipe["root"]) / "labels.yaml"
    path.write_text(json.dumps(recipe))
    return list(make_labels(read_labels_recipe(path), overwrite))


def draw(recipe: dict[str, Any], name: str, ids: np.ndarray) -> None:
    """A picture whose pixels are of these classes."""
    rgb = np.array([[0, 0, 200], [0, 200, 0], [200, 0, 0]], np.uint8)[ids]
    cv2.imwrite(str(Path(recipe["root"]) / "images" / f"{name}.png"), rgb[..., ::-1])


def labels_of(recipe: dict[str, Any], name: str) -> np.ndarray:
    labels = cv2.imread(str(Path(recipe["root"]) / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
    assert labels is not None
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_what_the_teacher_says(recipe: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, (8, 8), np.uint8).repeat(8, 0).repeat(8, 1)
    draw(recipe, "a", ids)
    (made,) = run(recipe)
    assert (made.pictures, made.known) == (1, 1.0)
    np.testing.assert_array_equal(labels_of(recipe, "a"), ids)


def test_another_size_and_views_name_the_same_places(recipe: dict[str, Any]) -> None:
    ids = np.zeros((3 * SIDE, 2 * SIDE), np.uint8)
    ids[SIDE:] = 1
    ids[2 * SIDE :, :SIDE] = 2
    draw(recipe, "a", ids)
    recipe["views"] = [[0, 0, 0.5, 1], [0.25, 0.25, 1, 0.9]]
    recipe["teachers"].append({**recipe["teachers"][0], "resize": "pad"})
    run(recipe)
    labels = labels_of(recipe, "a")
    kernel = np.ones((9, 9), np.uint8)
    inside = cv2.erode(ids, kernel) == cv2.dilate(ids, kernel)  # a seam moves by a few pixels with the sizes
    np.testing.assert_array_equal(labels[inside], ids[inside])


def test_views_that_disagree_leave_a_pixel_unknown(recipe: dict[str, Any]) -> None:
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[:, : SIDE // 4] = 1  # what a network that mirrors calls the other side
    draw(recipe, "a", ids)
    recipe["teachers"][0]["model"] = str(teacher(Path(recipe["root"]) / "flip.onnx", flip=True))
    recipe["mirror"] = False
    run(recipe)
    np.testing.assert_array_equal(labels_of(recipe, "a"), ids[:, ::-1])
    recipe["teachers"].append({**recipe["teachers"][0], "model": str(Path(recipe["root"]) / "rgb.onnx")})
    run(recipe)
    np.testing.assert_array_equal(labels_of(recipe, "a"), np.where(ids == ids[:, ::-1], ids, 255))


def test_a_class_that_is_none_of_ours_contradicts_nobody(recipe: dict[str, Any]) -> None:
    ids = np.arange(SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8) // 8 % 3
    draw(recipe, "a", ids)
    full = recipe["teachers"][0]
    recipe["teachers"] = [{**full, "ids": {"red": "car"}}, {**full, "ids": {"green": "road"}}]
    run(recipe)
    np.testing.assert_array_equal(labels_of(recipe, "a"), np.where(ids == 0, 255, ids))


def test_things_are_believed_inside_their_boxes_alone(recipe: dict[str, Any]) -> None:
    ids = np.full((SIDE, SIDE), 2, np.uint8)
    draw(recipe, "a", ids)
    draw(recipe, "b", ids)
    boxes = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "van"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [8, 16, 24, 8]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [40, 40, 8, 8]},
        ],
    }
    (Path(recipe["root"]) / "boxes.json").write_text(json.dumps(boxes))
    recipe["inside"] = {"car": ["van"]}
    recipe["sets"][0]["boxes"] = "boxes.json"
    run(recipe)
    expected = np.full((SIDE, SIDE), 255, np.uint8)
    expected[16:24, 8:32] = 2
    np.testing.assert_array_equal(labels_of(recipe, "a"), expected)
    assert (labels_of(recipe, "b") == 255).all()
    del recipe["sets"][0]["boxes"]
    run(recipe)
    assert (labels_of(recipe, "a") == 255).all()  # nobody drew any


def test_walls_are_not_believed_inside_boxes_of_what_has_flanks(recipe: dict[str, Any]) -> None:
    draw(recipe, "a", np.ones((SIDE, SIDE), np.uint8))
    boxes = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "van"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [8, 16, 24, 8]}],
    }
    (Path(recipe["root"]) / "boxes.json").write_text(json.dumps(boxes))
    recipe["outside"] = {"road": ["van"]}
    recipe["sets"][0]["boxes"] = "boxes.json"
    run(recipe)
    expected = np.ones((SIDE, SIDE), np.uint8)
    expected[16:24, 8:32] = 255
    np.testing.assert_array_equal(labels_of(recipe, "a"), expected)


def test_small_regions_stay_unknown(recipe: dict[str, Any]) -> None:
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[4:8, 4:8], ids[20:30, 20:30] = 1, 2
    draw(recipe, "a", ids)
    recipe["min_region"] = 17
    run(recipe)
    np.testing.assert_array_equal(labels_of(recipe, "a"), np.where(ids == 1, 255, ids))


def test_a_broken_off_run_goes_on_and_other_teachers_begin_anew(recipe: dict[str, Any]) -> None:
    for name in "abc":
        draw(recipe, name, np.zeros((SIDE, SIDE), np.uint8))
    run(recipe)
    kept = Path(recipe["root"]) / "labels" / "b.png"
    marked = np.full((SIDE, SIDE), 1, np.uint8)
    cv2.imwrite(str(kept), marked)
    (kept.parent / "c.png").unlink()
    run(recipe)
    assert (labels_of(recipe, "b") == 1).all()  # was there
    assert (labels_of(recipe, "c") == 0).all()
    run(recipe, overwrite=True)
    assert (labels_of(recipe, "b") == 0).all()
    cv2.imwrite(str(kept), marked)
    recipe["mirror"] = False
    run(recipe)
    assert (labels_of(recipe, "b") == 0).all()
    record = json.loads((kept.parent / RECORD).read_text())
    assert [made["model"] for made in record["teachers"]] == ["rgb.onnx"]
    assert len(record["teachers"][0]["sha256"]) == 64


def labelled(recipe: dict[str, Any]) -> tuple[Path, Path]:
    """Labels of three pictures made by a recipe in a file, and that file."""
    for name in "abc":
        draw(recipe, name, np.zeros((SIDE, SIDE), np.uint8))
    path = Path(recipe["root"]) / "labels.yaml"
    path.write_text(json.dumps(recipe))
    for _ in make_labels(read_labels_recipe(path), recipe=path):
        pass
    return Path(recipe["root"]) / "labels", path


def test_labels_are_outdated_once_their_teacher_or_recipe_has_changed(recipe: dict[str, Any]) -> None:
    folder, path = labelled(recipe)
    ids = dict(enumerate(CLASSES))
    check_labels(folder, ids, path)
    check_labels(folder, ids)
    model = Path(recipe["teachers"][0]["model"])
    content = model.read_bytes()
    teacher(model, flip=True)
    for given in (path, None):  # the record knows the recipe, too
        command = f"`perception pseudo-label {path.as_posix()}` makes them anew"
        with pytest.raises(SourceError, match=r"labels: these pseudo-labels are outdated: teacher rgb\.onnx") as said:
            check_labels(folder, ids, given)
        assert command in str(said.value) and "\n" not in str(said.value)
    model.unlink()
    check_labels(folder, ids, path)  # nobody knows
    model.write_bytes(content)
    path.write_text(json.dumps({**recipe, "mirror": False}))
    with pytest.raises(SourceError, match="outdated: their recipe has changed since"):
        check_labels(folder, ids, path)
    path.write_text(json.dumps({**recipe, "sets": [{"images": "images", "output": "elsewhere"}]}))
    check_labels(folder, ids, path)  # other sets change nothing about these
    path.write_text(json.dumps({**recipe, "mirror": False}))
    list(make_labels(read_labels_recipe(path), recipe=path))
    check_labels(folder, ids, path)


def test_labels_are_outdated_once_their_boxes_have_changed(recipe: dict[str, Any]) -> None:
    boxes = Path(recipe["root"]) / "boxes.json"
    document: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "van"}],
        "annotations": [],
    }
    boxes.write_text(json.dumps(document))
    recipe["sets"][0]["boxes"] = "boxes.json"
    folder, path = labelled(recipe)
    check_labels(folder, {}, path)
    boxes.write_text(json.dumps({**document, "licenses": []}))
    with pytest.raises(SourceError, match=r"outdated: boxes\.json has changed since"):
        check_labels(folder, {}, path)


def test_labels_that_are_missing_say_which_command_makes_them(recipe: dict[str, Any], tmp_path: Path) -> None:
    folder, path = labelled(recipe)
    (folder / "b.png").unlink()
    how = f"`perception pseudo-label {path.as_posix()}` makes them"
    with pytest.raises(SourceError, match="2 of 3 pictures have pseudo-labels; ") as said:
        check_labels(folder, {}, path)
    assert str(said.value).endswith(how)
    with pytest.raises(SourceError, match="nowhere: there are no pseudo-labels here; ") as said:
        check_labels(tmp_path / "nowhere", {}, path)
    assert str(said.value).endswith(how)
    check_labels(tmp_path / "nowhere", {})  # whoever reads them says that


def test_labels_of_other_classes_are_refused(recipe: dict[str, Any]) -> None:
    folder, path = labelled(recipe)
    check_labels(folder, {0: "sky", 2: "car"}, path)
    with pytest.raises(SourceError, match="id 1 of these pseudo-labels is road, not pavement"):
        check_labels(folder, {0: "sky", 1: "pavement"}, path)


def test_a_record_of_an_earlier_version_is_as_good(recipe: dict[str, Any]) -> None:
    folder, path = labelled(recipe)
    record = json.loads((folder / RECORD).read_text())
    del record["made_by"], record["pictures"]
    (folder / RECORD).write_text(json.dumps(record))
    marked = np.full((SIDE, SIDE), 1, np.uint8)
    cv2.imwrite(str(folder / "b.png"), marked)
    list(make_labels(read_labels_recipe(path), recipe=path))
    assert (labels_of(recipe, "b") == 1).all()  # nothing was made anew
    check_labels(folder, {}, path)


def test_a_teacher_that_answers_more_classes_than_the_recipe_names_is_refused(recipe: dict[str, Any]) -> None:
    draw(recipe, "a", np.zeros((SIDE, SIDE), np.uint8))  # all blue: the third class
    recipe["teachers"][0] |= {"classes": ["red", "green"], "ids": {"red": "car"}}
    with pytest.raises(ModelError, match=r"rgb\.onnx: it answers class 2; the recipe names 2 classes"):
        run(recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["sky", "road"]}, "unknown classes car; there are sky, road"),
        ({"ignore": 1}, "ignore id 1 is the id of class road"),
        ({"views": [[0.5, 0, 0.2, 1]]}, r"view \[0.5, 0.0, 0.2, 1.0\] is no part of a picture"),
        ({"inside": {"dog": ["dog"]}}, "unknown classes dog"),
        ({"teachers": []}, "teachers: List should have at least 1 item"),
        ({"speed": 3}, "speed: Extra inputs are not permitted"),
    ],
)
def test_a_faulty_recipe_is_refused(recipe: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run({**recipe, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": ""}, "teachers.0.licence: String should have at least 1 character"),
        ({"ids": {"pink": "car"}}, "teacher rgb.onnx has no class pink"),
    ],
)
def test_a_faulty_teacher_is_refused(recipe: dict[str, Any], change: dict[str, Any], message: str) -> None:
    recipe["teachers"][0] |= change
    with pytest.raises(UsageError, match=message):
        run(recipe)


def test_files_that_are_not_what_the_recipe_says_are_named(recipe: dict[str, Any]) -> None:
    draw(recipe, "a", np.zeros((SIDE, SIDE), np.uint8))
    model = Path(recipe["teachers"][0]["model"])
    recipe["teachers"][0]["size"] = [32, 32]
    with pytest.raises(ModelError, match=r"rgb.onnx: its input is \[1, 64, 64, 3\], not one picture of 32x32"):
        run(recipe)
    recipe["teachers"][0]["size"] = [SIDE, SIDE]
    model.write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"rgb\.onnx: OpenVINO cannot read the teacher"):
        run(recipe)
    model.unlink()
    with pytest.raises(ModelError, match=r"rgb\.onnx: cannot read the teacher: No such file"):
        run(recipe)
    teacher(model)
    recipe["sets"][0]["boxes"] = "none.json"
    with pytest.raises(SourceError, match=r"none\.json: no such file"):
        run(recipe)
    del recipe["sets"][0]["boxes"]
    (Path(recipe["root"]) / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"a\.png"):
        run(recipe)
