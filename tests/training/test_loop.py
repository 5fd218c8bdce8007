"""The training loop from recipe to exported file, on drawn pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import yaml  # noqa: E402

from perception.card import read_card  # noqa: E402
from perception.engines.openvino import native_precisions  # noqa: E402
from perception.errors import ModelError, PerceptionError  # noqa: E402
from perception.networks.camera import CameraGraph  # noqa: E402
from perception.networks.segmentation_detection import SegmentationDetectionNetwork  # noqa: E402
from perception.training.export.export import check_export, export  # noqa: E402
from perception.training.export.release import release  # noqa: E402
from perception.training.recipes.read import read_config  # noqa: E402
from perception.training.run.loop import Trainer, TrainResult, train  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint  # noqa: E402
from tests.training.pictures import write_folder  # noqa: E402

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "smoke.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pictures"))


def recipe(folder: Path, **changes: object) -> Path:
    """The smoke recipe with its output in ``folder``."""
    content = yaml.safe_load(SMOKE.read_text())
    content.update(output=str(folder / "run"), **changes)
    path = folder / "smoke.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(recipe(tmp_path_factory.mktemp("unbroken")), data_root=data)


def rows(result: TrainResult) -> list[dict[str, float]]:
    return [json.loads(line) for line in (result.last.parent / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_accuracy_is_logged(unbroken: TrainResult) -> None:
    log = rows(unbroken)
    assert [row["epoch"] for row in log] == [1, 2, 3, 4]
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    measured = [row["miou"] for row in log if "miou" in row]
    assert len(measured) == 2
    assert unbroken.score == pytest.approx(max(measured), abs=1e-4)
    assert unbroken.best.is_file()


def test_a_stopped_run_goes_on_bit_for_bit(data: Path, unbroken: TrainResult, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    first = train(path, data_root=data, stop_after=2)
    assert first.epochs == 2
    torch.manual_seed(99)  # whatever happened in between must not matter
    second = train(path, data_root=data)
    a, b = load_checkpoint(unbroken.last), load_checkpoint(second.last)
    for part in ("network", "average"):
        for name, tensor in a[part].items():
            assert torch.equal(tensor, b[part][name]), f"{part}.{name}"
    assert torch.equal(a["torch_rng"], b["torch_rng"])
    assert (a["step"], a["best"]) == (b["step"], b["best"])
    for index, state in a["optimiser"]["state"].items():
        assert torch.equal(state["exp_avg"], b["optimiser"]["state"][index]["exp_avg"])


def test_the_export_carries_its_card_and_matches_torch(unbroken: TrainResult, tmp_path: Path) -> None:
    import onnxruntime as ort

    output = tmp_path / "smoke.onnx"
    card = export(unbroken.best, output, {"some_miou": 0.5})
    assert read_card(output) == card
    assert card.input.resize == "stretch"
    assert (card.input.width, card.input.height) == (96, 72)
    assert card.segmentation is not None
    assert card.segmentation.names == ["ground", "box", "ball"]
    assert card.metrics == {"some_miou": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == ["smoke.onnx"]

    # Independent of the check inside: build the torch network here and feed RGB floats.
    state = load_checkpoint(unbroken.best)
    config = read_config(SMOKE)
    network = SegmentationDetectionNetwork(3, config.network.widths).eval()
    network.load_state_dict(state["average"])
    frames = np.random.default_rng(4).integers(0, 256, (2, 72, 96, 3), np.uint8)
    (result,) = ort.InferenceSession(str(output)).run(["class_logits"], {"frames": frames})
    rgb = np.ascontiguousarray(frames[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy((rgb - 127) / 128))["class_logits"].numpy()
    assert result.shape == (2, 3, 18, 24)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)


def test_a_wrong_export_is_refused(unbroken: TrainResult, tmp_path: Path) -> None:
    output = tmp_path / "smoke.onnx"
    export(unbroken.best, output)
    other = SegmentationDetectionNetwork(3, read_config(SMOKE).network.widths).eval()
    with pytest.raises(ModelError, match="differs from torch"):
        check_export(CameraGraph(other, other.first_convolution, ("class_logits",)), output)


def test_a_release_measures_the_file_it_ships(data: Path, unbroken: TrainResult, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    output = tmp_path / "smoke.onnx"
    card = release(unbroken.best, output, data)
    assert card.metrics["smoke_val_miou"] == pytest.approx(unbroken.score, abs=0.002)
    if "bf16" in native_precisions():
        assert card.metrics["smoke_val_miou_bf16"] == pytest.approx(unbroken.score, abs=0.03)
    assert {f"smoke_val_iou_{name}" for name in ("ground", "box", "ball")} <= set(card.metrics)
    assert read_card(output) == card
    assert [p.name for p in tmp_path.iterdir()] == ["smoke.onnx"]


def test_a_loss_that_is_no_number_stops_with_the_files(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(read_config(recipe(tmp_path), data))
    with torch.no_grad():
        trainer.network.head.classify.bias.fill_(float("nan"))
    with pytest.raises(PerceptionError, match=r"the loss became nan in epoch 1, step 0; the batch was \d"):
        trainer.run()
    names = (tmp_path / "run" / "bad_batch.txt").read_text().split()
    assert len(names) == 4


def test_a_class_without_a_pixel_is_named(data: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["data"]["classes"].append({"name": "unicorn", "color": [1, 2, 3]})
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(PerceptionError, match="no training pixel has the class unicorn"):
        train(path, data_root=data)


def test_the_command_is_quiet_and_says_one_line_when_it_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perception", "train", str(recipe(tmp_path)), "--data", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SMOKE.parents[2])
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "no such folder" in result.stderr
