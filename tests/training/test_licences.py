"""Recipes for models that shall be usable commercially: every set, teacher and start must have a licence for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import yaml  # noqa: E402

from perception.card import keep_in_card, read_card  # noqa: E402
from perception.errors import SourceError, UsageError  # noqa: E402
from perception.training.pseudo_labels.record import RECORD  # noqa: E402
from perception.training.recipes.read import read_config  # noqa: E402
from perception.training.tasks.cards import make_card  # noqa: E402
from perception.training.tasks.kinds import open_task  # noqa: E402
from perception.training.tasks.licences import check_networks  # noqa: E402
from perception.training.weights.checkpoint import save_checkpoint  # noqa: E402
from perception.weights.library import find_model  # noqa: E402
from tests.fixtures import Main  # noqa: E402
from tests.models import write_model  # noqa: E402
from tests.training.pictures import write_boxes, write_folder  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"


def recipe(folder: Path, **changes: Any) -> Path:
    """The smoke recipe for commercial use, its sets under free licences; keys of ``changes`` are dotted by ``__``."""
    content = yaml.safe_load((CONFIGS / "train" / "street-smoke.yaml").read_text())
    content["output"] = str(folder / "run")
    content["model"]["commercial_use"] = True
    content["data"]["train"] = [{**content["data"]["train"], "licence": "CC BY 4.0"}]
    content["detection"]["train"][0]["licence"] = "MIT"
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = content
        for name in parents:
            part = part[int(name) if name.isdecimal() else name]
        part[last] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train__0__licence": ""}, r"set train has no licence \(model.commercial_use\)"),
        ({"data__train__0__licence": "CC BY-NC 4.0"}, "set train has the licence 'CC BY-NC 4.0', which does not allow"),
        ({"data__train__0__licence": "as is"}, "set train has the licence 'as is', which is none of those known"),
        ({"detection__train__0__licence": ""}, "detection set boxes has no licence"),
        ({"detection__train__0__licence": "research only"}, "detection set boxes has the licence 'research only'"),
    ],
)
def test_a_set_without_such_a_licence_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert read_config(recipe(tmp_path)).model.commercial_use
    with pytest.raises(UsageError, match=message) as caught:
        read_config(recipe(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    read_config(recipe(tmp_path, model__commercial_use=False, **changes))  # who does not promise it may do that


def test_the_command_says_it_in_one_line_before_any_training(tmp_path: Path, main_here: Main) -> None:
    path = recipe(tmp_path, data__train__0__licence="")
    done = main_here("train", str(path), "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "set train has no licence" in done.stderr
    assert not (tmp_path / "run").exists()


def test_boxes_of_the_same_pictures_need_no_licence_of_their_own(tmp_path: Path) -> None:
    beside = {"images": "boxes/images", "labels": "boxes/labels", "licence": "CC BY 4.0"}
    boxes = {"annotations": "boxes/annotations.json", "names": {"box": "crate"}, "others": "drop"}
    changes: dict[str, Any] = {"detection__train__0__licence": ""}
    read_config(recipe(tmp_path, data__train=[{**beside, "boxes": boxes}], **changes))
    with pytest.raises(UsageError, match="detection set boxes has no licence"):  # whose boxes are they?
        read_config(
            recipe(tmp_path, data__train=[{**beside, "boxes": {**boxes, "annotations": "other.json"}}], **changes)
        )


def test_a_recipe_of_a_classifier_has_one_set(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "task": "classification", "name": "a", "output": "runs/a", "epochs": 1, "network": {"classifier": "lenet5"},
        "data": {"root": ".", "size": [32, 32], "train": "signs.zip", "classes": ["a", "b"]},
        "model": {"licence": "MIT", "commercial_use": True},
    }  # fmt: skip
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=r"data\.train signs\.zip has no licence"):
        read_config(path)
    content["data"]["licence"] = "CC0"
    path.write_text(yaml.safe_dump(content))
    assert read_config(path).model.commercial_use


def test_networks_that_it_starts_from_or_learns_from_must_be_such_too(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    model = write_model(tmp_path / "start.onnx")
    checkpoints = {}
    for name, promised in (("free", True), ("other", False)):
        config = read_config(recipe(tmp_path / "below", model__commercial_use=promised))
        checkpoints[name] = tmp_path / f"{name}.pt"
        save_checkpoint(checkpoints[name], {"config": json.loads(config.model_dump_json())})
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"network__start": str(checkpoints["free"])}, None),
        ({"network__start": str(checkpoints["other"])}, r"other\.pt: network\.start: it is not known"),
        ({"network__start": str(model)}, r"start\.onnx: network\.start: it is not known"),
        ({"network__start": str(recipe(tmp_path / "below", model__commercial_use=False))}, r"recipe\.yaml: network\."),
        ({"distil": {"teacher": str(checkpoints["free"])}}, None),
        ({"distil": {"teacher": str(checkpoints["other"])}}, r"other\.pt: distil\.teacher: it is not known"),
    ]
    for changes, message in cases:
        changes = {"network": {"pretrained": False}, **changes}
        config = read_config(recipe(tmp_path, **changes))
        if message is None:
            check_networks(config)
            continue
        with pytest.raises(UsageError, match=message):
            check_networks(config)
    keep_in_card(model, commercial_use=True)
    check_networks(read_config(recipe(tmp_path, network__start=str(model))))
    check_networks(read_config(recipe(tmp_path, network__start=str(recipe(tmp_path / "below")))))


def test_teachers_of_pseudo_labels_must_have_such_a_licence(tmp_path: Path) -> None:
    data = write_boxes(write_folder(tmp_path / "data", train=4, val=2), train=2, val=2)
    record = {"recipe": {"classes": ["ground", "box", "ball"]}, "teachers": [
        {"model": "a.tflite", "sha256": "0" * 64, "licence": "Apache-2.0 (somebody)"},
        {"model": "b.tflite", "sha256": "0" * 64, "licence": "CC BY-NC 4.0"},
    ]}  # fmt: skip
    (data / "train" / "labels" / RECORD).write_text(json.dumps(record))
    with pytest.raises(SourceError, match=r"train/labels: teacher b\.tflite of these labels has the licence 'CC BY-NC"):
        open_task(read_config(recipe(tmp_path), data))
    open_task(read_config(recipe(tmp_path, model__commercial_use=False), data))
    record["teachers"][1]["licence"] = "MIT"  # type: ignore[index]
    (data / "train" / "labels" / RECORD).write_text(json.dumps(record))
    open_task(read_config(recipe(tmp_path), data))


def test_the_card_says_it(tmp_path: Path) -> None:
    assert make_card(read_config(recipe(tmp_path)), {}, classification={"classes": ["a"]}).commercial_use is True
    for said in (False, None):
        config = read_config(recipe(tmp_path, model__commercial_use=said))
        assert make_card(config, {}, classification={"classes": ["a"]}).commercial_use is said


def test_what_ships_says_what_its_recipe_says() -> None:
    """The recipes that promise commercial use are those whose models' cards do."""
    for name in ("street", "street-open", "street-wide", "camvid"):
        promised = read_config(CONFIGS / "train" / f"{name}.yaml").model.commercial_use
        assert read_card(find_model(name)).commercial_use is promised, name


def test_street_could_not_promise_it(tmp_path: Path) -> None:
    content = yaml.safe_load((CONFIGS / "train" / "street.yaml").read_text())
    content["model"]["commercial_use"] = True
    content["base"] = str(CONFIGS / "train" / content["base"])
    path = tmp_path / "street.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="set camvid has no licence"):
        read_config(path)
