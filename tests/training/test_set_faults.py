"""Sets of pictures that contradict each other, or are not whole, are told before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import yaml  # noqa: E402

from perception.errors import PerceptionError, SourceError, UsageError  # noqa: E402
from perception.training.recipes.read import parse_config, read_config  # noqa: E402
from perception.training.run.loop import train  # noqa: E402
from perception.training.tasks.kinds import open_task  # noqa: E402
from tests.fixtures import Main  # noqa: E402
from tests.training.sets import FAR, NAMES, PLAIN, SMOKE, TOWN, recipe, write_sets  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def test_classes_that_no_set_has_are_refused_unless_the_recipe_says_so(data: Path, tmp_path: Path) -> None:
    classes = [{"name": name, "color": [9, i, 9]} for i, name in enumerate((*NAMES, "unicorn"))]
    with pytest.raises(SourceError, match="no training pixel has the class unicorn"):
        open_task(read_config(recipe(tmp_path, data__classes=classes), data))
    open_task(read_config(recipe(tmp_path, data__classes=classes, data__unlabelled=["unicorn"]), data))
    with pytest.raises(UsageError, match="unlabelled: unknown classes horse; there are ground, box, ball"):
        read_config(recipe(tmp_path, data__unlabelled=["horse"]), data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train": [PLAIN, PLAIN]}, "two sets are called train: give each a name"),
        ({"data__dev": [FAR, FAR]}, "two sets are called far: give each a name"),
        (
            {"data__train": [{**PLAIN, "ids": {3: "bal"}}]},
            "set train: unknown classes bal; there are ground, box, ball",
        ),
        ({"data__train": [{**PLAIN, "labelled": ["ground", "tree"]}]}, "set train: unknown classes tree"),
        ({"data__train": [{**PLAIN, "ids": {3: "ball"}, "labelled": ["box", "ball"]}]}, "labels box, but no id"),
        ({"data__train": [{**PLAIN, "ids": {3: "ball", 4: "box"}, "ignore": [4]}]}, r"ids \[4\] are both a class and"),
        ({"data__train": [{**PLAIN, "ids": {255: "ball", 4: "box"}}]}, r"ids \[255\] are both a class and ignored"),
        (
            {"data__train": [{**PLAIN, "boxes": {"annotations": "b.json", "names": {"box": "crat"}}}]},
            "set train: unknown detection classes crat; there are crate, ball",
        ),
        (
            {"data__train": [{**PLAIN, "boxes": {"annotations": "b.json", "labelled": ["box"]}}]},
            "set train: unknown detection classes box",
        ),
        ({"detection__val__labelled": ["box"]}, "unknown detection classes box"),
        (
            {"detection__train": [{"images": "boxes/images", "annotations": "boxes/annotations.json"}] * 2},
            "two sets are called boxes: give each a name",
        ),
        (
            {"data__train": [TOWN, {**TOWN, "name": "again", "ids": {40: "ground", 41: "ball"}, "labelled": None}]},
            "sets town and again contradict each other: id 41 of the same labels is box in one and ball in the other",
        ),
        (
            {"data__dev": [{**PLAIN, "name": "swapped", "ids": {0: "ground", 1: "ball", 2: "box"}}]},
            "sets train and swapped contradict each other: id 1 of the same labels is box in one and ball in the other",
        ),
        (
            {
                "detection__dev": [
                    {
                        "images": "town/images",
                        "annotations": "town/boxes.json",
                        "names": {"box": "ball"},
                        "others": "drop",
                    }
                ]
            },
            "sets town and town contradict each other: class box of the same labels is crate in one and ball in the",
        ),
    ],
)
def test_sets_that_contradict_each_other_are_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_config(recipe(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_the_command_tells_it_in_one_line_before_any_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main_here: Main
) -> None:
    monkeypatch.chdir(SMOKE.parents[2])
    for path in (
        recipe(tmp_path, data__train=[PLAIN, PLAIN]),
        recipe(tmp_path / "ids", data__train=[PLAIN, {**TOWN, "ids": {40: "ground", 42: "box"}}]),
    ):
        done = main_here("train", str(path), "--data", str(data))
        assert done.returncode == 2, done.stderr
        assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert not (path.parent / "run").exists()


def test_faults_of_several_sets_are_told_together(data: Path, tmp_path: Path) -> None:
    missing = [{**PLAIN, "name": "a", "images": "no/images"}, {**TOWN, "labels": "nowhere/labels"}]
    config = read_config(recipe(tmp_path, data__train=missing), data)
    with pytest.raises(PerceptionError, match=r"no/images: no such folder.*nowhere/labels: no such folder"):
        open_task(config)


def test_a_recipe_of_a_single_set_is_a_list_of_one() -> None:
    content = yaml.safe_load(SMOKE.read_text())
    config = parse_config(content, SMOKE)
    assert [part.title for part in config.data.train] == ["train"]
    assert parse_config(json.loads(config.model_dump_json()), "checkpoint") == config


def test_outdated_labels_are_told_before_any_picture_is_read(data: Path, tmp_path: Path) -> None:
    changes = {"data__train": [{**PLAIN, "label_recipe": "labels.yaml"}, {**TOWN, "labels": "nowhere"}]}
    config = read_config(recipe(tmp_path, **changes), data)
    with pytest.raises(SourceError, match=r"train/labels: there are no pseudo-labels here; `perception pseudo-label"):
        open_task(config)


def test_what_comes_second_is_checked_before_what_comes_first_is_trained(data: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = recipe(tmp_path / "first")
    for changes in (
        {"data__train": [{**PLAIN, "labels": "nowhere"}]},
        {"distil": {"teacher": str(tmp_path / "none.pt")}},
    ):
        path = recipe(tmp_path, network={"start": str(first), "pretrained": False}, **changes)
        with pytest.raises(PerceptionError, match=r"nowhere: no such folder|none\.pt: no such checkpoint"):
            train(path, data_root=data)
        assert not (tmp_path / "first" / "run").exists()
