"""`perception eval` and `perception data check`, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from perception.commands.main import app
from perception.errors import ModelError, SourceError, UsageError
from perception.evaluation.report import NAME
from tests.evaluation.scenes import write_boxes, write_labels
from tests.models import solid, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "all.onnx"
    return str(write_model(path, width=128, height=96, detection=True, classification=True))


def call(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def options(command: str, folder: Path) -> list[str]:
    """What the evaluation commands need beside the model; makes the data."""
    if command == "segmentation":
        write_labels(folder, size=(128, 96))
        return ["--images", f"{folder}/images", "--labels", f"{folder}/labels", "--ignore", "11"]
    if command == "detection":
        write_boxes(folder)
        return ["--images", f"{folder}/images", "--annotations", f"{folder}/boxes.json"]
    for name in ("red", "green"):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "a.png"), solid(name))
    return ["--data", str(folder)]


KEYS = {
    "segmentation": ["miou", "iou", "pixel_accuracy", "images", "ms_per_image"],
    "detection": ["map", "map50", "ap", "images", "ms_per_image"],
    "classification": ["accuracy", "error_percent", "confusion", "images"],
}


@pytest.mark.parametrize("command", list(KEYS))
def test_standard_output_is_json_and_nothing_else_and_torch_is_not_needed(
    tmp_path: Path, model: str, command: str
) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"  # importing them raises
        "from perception.commands.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "eval", command, "-m", model, "--json", "--report", str(tmp_path / "report"),
         *options(command, tmp_path / "data")],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == KEYS[command]
    assert done.stderr == ""
    assert (tmp_path / "report" / NAME).stat().st_size > 1000


@pytest.mark.parametrize("command", list(KEYS))
def test_tables_for_people(tmp_path: Path, model: str, command: str) -> None:
    result = call("eval", command, "-m", model, *options(command, tmp_path))
    assert result.exit_code == 0, result.output
    for word in ("red", "green", "images", "ms an image"):
        assert word in result.stdout
    assert "OpenVINO" in result.stderr


def test_a_report_is_not_replaced_unasked(tmp_path: Path, model: str) -> None:
    args = ["eval", "segmentation", "-m", model, "--json", "--report", tmp_path, *options("segmentation", tmp_path)]
    assert call(*args).exit_code == 0
    before = (tmp_path / NAME).stat().st_mtime_ns
    again = call(*args)
    assert isinstance(again.exception, UsageError)
    assert NAME in str(again.exception)
    assert "overwrite=True" in str(again.exception)
    assert (tmp_path / NAME).stat().st_mtime_ns == before
    assert call(*args, "--overwrite").exit_code == 0
    assert (tmp_path / NAME).stat().st_mtime_ns > before


def test_names_from_a_file(tmp_path: Path, model: str) -> None:
    data = options("detection", tmp_path)
    path = tmp_path / "boxes.json"
    path.write_text(path.read_text().replace('"red"', '"crimson"'))
    (tmp_path / "names.yaml").write_text("crimson: red\n")
    without = json.loads(call("eval", "detection", "-m", model, "--json", *data).stdout)
    result = json.loads(
        call("eval", "detection", "-m", model, "--json", "--names", tmp_path / "names.yaml", *data).stdout
    )
    assert list(without["ap"]) == ["green", "blue"]
    assert list(result["ap"]) == ["red", "green", "blue"]


def test_another_size_is_measured_as_a_model_of_that_size(tmp_path: Path) -> None:
    data = options("segmentation", tmp_path)
    small = write_model(tmp_path / "small.onnx", width=64, height=48)
    free = write_model(tmp_path / "free.onnx", width=128, height=96, multiple=16)
    runs = [["-m", free, "--size", "64x48"], ["-m", small], ["-m", free]]
    results = [json.loads(call("eval", "segmentation", "--json", *run, *data).stdout) for run in runs]
    for result in results:
        del result["ms_per_image"]
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("command", list(KEYS))
def test_a_size_that_a_model_does_not_take_is_refused(tmp_path: Path, model: str, command: str) -> None:
    result = call("eval", command, "-m", model, "--size", "64x48", *options(command, tmp_path))
    assert isinstance(result.exception, UsageError)
    assert "128x96" in str(result.exception)


def test_what_is_wrong_ends_it_with_its_own_error(tmp_path: Path, model: str) -> None:
    data = options("detection", tmp_path)
    masks = write_model(tmp_path / "masks.onnx")
    for args, error in (
        (["-m", masks, *data], ModelError),
        (["-m", model, "--images", tmp_path / "no", *data[2:]], SourceError),
        (["-m", model, "--names", tmp_path / "no.yaml", *data], UsageError),
    ):
        result = call("eval", "detection", "--json", *args)
        assert isinstance(result.exception, error)
        assert result.exception.exit_code == 2
        assert result.stdout == ""
    assert call("eval", "detection", "-m", model, "--images", tmp_path).exit_code == 2


def test_check_says_what_is_there_and_what_is_wrong(tmp_path: Path) -> None:
    write_labels(tmp_path)
    args = ["data", "check", "--images", tmp_path / "images", "--labels", tmp_path / "labels"]
    good = call(*args, "--classes", "red,green,blue", "--ignore", "11", "--json")
    assert good.exit_code == 0
    data = json.loads(good.stdout)
    labels = np.stack([cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (tmp_path / "labels").iterdir()])
    assert data["pixels"] == {n: int((labels == i).sum()) for i, n in enumerate(["red", "green", "blue"])}
    assert (data["images"], data["faults"]) == (6, [])
    bad = call(*args, "--classes", "red,green,blue,violet")
    assert bad.exit_code == 2
    assert "has no pixel of class 'violet'" in bad.stdout
    assert bad.stdout.count("unknown class ids [11]") == 6
    assert "faults: 7" in bad.stdout
    assert call(*args, "--json").exit_code == 0  # without names every id is known


def test_check_of_boxes_and_of_labelled_pictures(tmp_path: Path) -> None:
    options("detection", tmp_path / "boxes")
    args = [
        "data",
        "check",
        "--images",
        tmp_path / "boxes" / "images",
        "--annotations",
        tmp_path / "boxes" / "boxes.json",
    ]
    truth = json.loads((tmp_path / "boxes" / "boxes.json").read_text())
    good = call(*args, "--json")
    assert good.exit_code == 0, good.output
    assert sum(json.loads(good.stdout)["boxes"].values()) == sum(not a["iscrowd"] for a in truth["annotations"])
    (tmp_path / "boxes" / "images" / "3.png").unlink()
    bad = call(*args, "--json", "--classes", "red,violet")
    assert bad.exit_code == 2
    faults = {(Path(f["where"]).name, f["what"], f["fatal"]) for f in json.loads(bad.stdout)["faults"]}
    assert faults == {
        ("3.png", "missing image (boxes.json lists it)", True),
        ("boxes.json", "has no box of class 'violet'", False),
    }
    data = options("classification", tmp_path / "pictures")
    good = call("data", "check", "--json", "--classes", "red,green", *data)
    assert json.loads(good.stdout) == {"images": 2, "images_by_class": {"green": 1, "red": 1}, "faults": []}
    (tmp_path / "pictures" / "red" / "a.png").write_bytes(b"x")
    bad = call("data", "check", "--classes", "red,green,blue", *data)
    assert bad.exit_code == 2
    assert "corrupt image" in bad.stdout
    assert "no image of class 'blue'" in bad.stdout


def test_check_of_nothing_in_particular(tmp_path: Path) -> None:
    for args in ([], ["--images", tmp_path], ["--labels", tmp_path], ["--images", tmp_path, "--data", tmp_path]):
        result = call("data", "check", *args)
        assert isinstance(result.exception, UsageError)
        assert str(result.exception).startswith(
            "say what to check: a recipe, images with labels, images with annotations"
        )


def test_check_of_all_that_a_recipe_names(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.training.pictures import write_folder

    recipe = Path(__file__).parents[2] / "configs" / "train" / "smoke.yaml"
    write_folder(tmp_path, train=3, val=2)
    good = call("data", "check", recipe, "--data", tmp_path)
    assert good.exit_code == 0, good.output
    assert "no faults" in good.stdout
    assert json.loads(call("data", "check", recipe, "--data", tmp_path, "--json").stdout) == {"faults": []}
    other = call("data", "check", recipe, "--images", tmp_path)  # which would be left out in silence
    assert isinstance(other.exception, UsageError)
    (tmp_path / "train" / "labels" / "001.png").unlink()
    (tmp_path / "val" / "images" / "000.png").write_bytes(b"")
    bad = call("data", "check", recipe, "--data", tmp_path)
    assert isinstance(bad.exception, SourceError)
    assert "001.png: missing label" in str(bad.exception)
    assert "000.png: corrupt image (the file is empty)" in str(bad.exception)
