"""Training one of the two heads: what moves, what stays, what is measured, on drawn pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import skip_without

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
skip_without("faster_coco_eval", "faster-coco-eval is not installed (extra eval)")

import yaml  # noqa: E402
from torch import Tensor  # noqa: E402

from perception.errors import UsageError  # noqa: E402
from perception.training.recipes.read import parse_config, read_config  # noqa: E402
from perception.training.run.loop import Trainer, TrainResult, train  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint  # noqa: E402
from tests.training.pictures import write_boxes, write_folder  # noqa: E402

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "street-smoke.yaml"
FINEST = ("pyramid.lateral.4", "pyramid.narrow.4", "pyramid.smooth.4", "pyramid.stem_skip")
IDLE = {"masks": ("detector.",), "boxes": ("head.", *FINEST)}
MEASURED = {"masks": {"miou", "iou"}, "boxes": {"map", "map50", "ap50"}}


def recipe(folder: Path, **changes: Any) -> Path:
    content = {
        **yaml.safe_load(SMOKE.read_text()),
        "tensorboard": False,
        "evaluate_every": 1,
        "output": str(folder / "run"),
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxes(write_folder(tmp_path_factory.mktemp("pictures")))


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """An epoch of both heads, measured."""
    return train(recipe(tmp_path_factory.mktemp("both")), data_root=data, stop_after=1)


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


@pytest.mark.parametrize("only", ["masks", "boxes"])
@pytest.mark.parametrize("distilled", [False, True])
def test_a_run_of_both_goes_on_as_one_of_a_single_head(
    only: str, distilled: bool, data: Path, both: TrainResult, tmp_path: Path
) -> None:
    teacher = {"distil": {"teacher": str(both.last)}} if distilled else {}
    path = recipe(tmp_path, only=only, **teacher)
    (tmp_path / "run").mkdir()
    shutil.copy(both.last, tmp_path / "run" / "last.pt")
    result = train(path, data_root=data, stop_after=2)

    before, after = load_checkpoint(both.last), load_checkpoint(result.last)
    changed = moved(before["network"], after["network"])
    assert not [name for name in changed if name.startswith(IDLE[only])], "the other head stays, statistics too"
    other = IDLE["boxes" if only == "masks" else "masks"]
    for part in (*other, "backbone.", "pyramid.smooth.8"):
        assert any(name.startswith(part) for name in changed), part

    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {name for name in rows[-1] if name.startswith("loss_")} == (
        {f"loss_{only}", "loss_teacher"} if distilled else set()
    )
    assert MEASURED[only] <= rows[-1].keys()
    assert not MEASURED["boxes" if only == "masks" else "masks"] & rows[-1].keys()
    score = rows[-1]["miou" if only == "masks" else "map50"]
    assert result.score == pytest.approx(score, abs=1e-3), "not weighed against the mean of both"
    assert load_checkpoint(result.best)["epoch"] == 2


@pytest.mark.parametrize("only", ["masks", "boxes"])
def test_with_the_shared_layers_frozen_the_other_heads_output_stays_to_the_bit(
    only: str, data: Path, both: TrainResult, tmp_path: Path
) -> None:
    result = train(recipe(tmp_path, only=only, freeze_shared=True), data_root=data, start=both.last, stop_after=1)
    before, after = load_checkpoint(both.last), load_checkpoint(result.last)
    changed = moved(before["average"], after["average"])
    assert changed and all(name.startswith(IDLE["boxes" if only == "masks" else "masks"]) for name in changed)

    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(5)) * 2 - 1
    outputs = []
    for state in (before, after):
        network = Trainer(read_config(recipe(tmp_path), data)).network.eval()
        network.load_state_dict(state["average"])
        with torch.inference_mode():
            outputs.append(network(images))
    same = {name for name in ("class_logits", "boxes", "scores") if torch.equal(outputs[0][name], outputs[1][name])}
    assert same == ({"boxes", "scores"} if only == "masks" else {"class_logits"})


def test_shared_layers_are_frozen_beside_a_chosen_head_only() -> None:
    content = {**yaml.safe_load(SMOKE.read_text()), "freeze_shared": True}
    with pytest.raises(UsageError, match="freeze_shared keeps what the head that is not trained needs"):
        parse_config(content, "recipe.yaml")


@pytest.mark.parametrize("only", [None, "masks", "boxes"])
def test_epochs_are_equally_long_and_masks_alone_see_no_other_pictures(
    only: str | None, data: Path, tmp_path: Path
) -> None:
    trainer = Trainer(read_config(recipe(tmp_path, only=only), data))
    alike = Trainer(read_config(recipe(tmp_path), data))
    assert len(trainer.batches) == len(alike.batches)
    for batch, usual in zip(trainer.batches.epoch(0), alike.batches.epoch(0), strict=True):
        assert torch.equal(batch.labels, usual.labels)
        count = len(usual.labels) if only == "masks" else len(usual.names)
        assert batch.names == usual.names[:count]
        assert torch.equal(batch.images, usual.images[:count])


@pytest.mark.parametrize("only", ["masks", "boxes"])
def test_one_head_of_one_is_no_choice(only: str) -> None:
    content = {**yaml.safe_load(SMOKE.read_text()), "only": only, "detection": None}
    with pytest.raises(UsageError, match=f"only: {only} chooses one of two heads; there is no detection part"):
        parse_config(content, "recipe.yaml")
