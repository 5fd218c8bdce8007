"""Learning from another network: its loss against a slow loop, and through the training loop on drawn pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures import skip_without

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
skip_without("faster_coco_eval", "faster-coco-eval is not installed (extra eval)")

import yaml  # noqa: E402
from torch import Tensor  # noqa: E402

from perception.errors import ModelError, UsageError  # noqa: E402
from perception.training.losses.distillation import LEAST_CONFIDENCE, DistillationLoss  # noqa: E402
from perception.training.recipes.read import parse_config  # noqa: E402
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig  # noqa: E402
from perception.training.run.loop import train  # noqa: E402
from perception.training.tasks.teacher import Teacher  # noqa: E402
from tests.training.pictures import write_boxes, write_folder  # noqa: E402

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "street-smoke.yaml"


def recipe(**changes: Any) -> dict[str, Any]:
    """The smoke recipe with other values; a dict is laid over the recipe's own."""
    content: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(content.get(name), dict) else value
    return content


def config(**distil: Any) -> SegmentationDetectionConfig:
    made = parse_config(recipe(distil={"teacher": "teacher.pt", **distil}), "recipe.yaml")
    assert isinstance(made, SegmentationDetectionConfig)
    return made


def answers(seed: int, prefix: str = "") -> dict[str, Tensor]:
    """Outputs of a network for two pictures, one of them with masks: 30 locations, 2 classes of boxes."""
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, 30, 2, generator=draw) * 50
    side = 5 + torch.rand(2, 30, 2, generator=draw) * 30
    outputs = {
        "class_logits": torch.randn(1, 3, 6, 8, generator=draw) * 2,
        "box_class_logits": torch.randn(2, 30, 2, generator=draw) * 3 - 2,
        "box_confidence_logits": torch.randn(2, 30, generator=draw),
        "boxes": torch.cat((corner, corner + side), 2),
    }
    return {f"{prefix}{name}": value for name, value in outputs.items()}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def entropy(wanted: float, logit: float) -> float:
    p = sigmoid(logit)
    return -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)


def giou(a: list[float], b: list[float]) -> float:
    def area(x0: float, y0: float, x1: float, y1: float) -> float:
        return max(x1 - x0, 0) * max(y1 - y0, 0)

    common = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - common
    hull = area(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    return 1 - (common / union - (hull - union) / hull)


def slow(outputs: dict[str, Tensor], masks: float, boxes: float) -> float:
    """The loss, number by number."""
    ours, theirs = outputs["class_logits"].numpy(), outputs["teacher_class_logits"].numpy()
    divergences = []
    for y, x in np.ndindex(*ours.shape[2:]):
        p, q = (np.exp(v[0, :, y, x].astype(float)) for v in (theirs, ours))
        p, q = p / p.sum(), q / q.sum()
        divergences.append(float((p * np.log(p / q)).sum()))
    total = masks * float(np.mean(divergences))
    named = scored = placed = trusted = 0.0
    for n, k in np.ndindex(2, 30):
        soft = [sigmoid(v) for v in outputs["teacher_box_class_logits"][n, k].tolist()]
        for wanted, logit in zip(soft, outputs["box_class_logits"][n, k].tolist(), strict=True):
            named += abs(sigmoid(logit) - wanted) ** 2 * entropy(wanted, logit)
        sure = max(soft)
        scored += sure
        if sure >= LEAST_CONFIDENCE:
            placed += sure * giou(outputs["boxes"][n, k].tolist(), outputs["teacher_boxes"][n, k].tolist())
            wanted = sigmoid(float(outputs["teacher_box_confidence_logits"][n, k]))
            trusted += sure * entropy(wanted, float(outputs["box_confidence_logits"][n, k]))
    return total + boxes * (named + 2 * placed + 0.5 * trusted) / max(scored, 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("masks", "boxes"), [(1.0, 1.0), (0.0, 2.0), (3.0, 0.0)])
def test_the_loss_is_what_a_slow_loop_says(seed: int, masks: float, boxes: float) -> None:
    outputs = answers(seed) | answers(seed + 100, "teacher_")
    loss = DistillationLoss(config(masks=masks, boxes=boxes))(outputs)
    assert float(loss) == pytest.approx(slow(outputs, masks, boxes), rel=1e-4)


def test_who_says_what_the_teacher_says_learns_nothing() -> None:
    """Except of the confidence, whose entropy is not zero at its least."""
    outputs = answers(3)
    student = {name: value.clone().requires_grad_() for name, value in outputs.items()}
    soft = {f"teacher_{name}": value for name, value in outputs.items()}
    DistillationLoss(config())(student | soft).backward()
    for name, value in student.items():
        assert value.grad is not None
        assert float(value.grad.abs().max()) < 1e-5, name


def test_a_teacher_that_sees_nothing_teaches_no_boxes() -> None:
    outputs = answers(1) | answers(2, "teacher_")
    outputs["teacher_box_class_logits"] = torch.full((2, 30, 2), -20.0)
    outputs["boxes"].requires_grad_()
    loss = DistillationLoss(config(masks=0.0))(outputs)
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() > 0, "what it does not see is not there"
    assert outputs["boxes"].grad is not None and not outputs["boxes"].grad.any()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxes(write_folder(tmp_path_factory.mktemp("pictures")))


def written(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(output=str(folder / "run"), tensorboard=False, **changes)))
    return path


@pytest.mark.slow
def test_a_network_comes_nearer_to_its_teacher(data: Path, tmp_path: Path) -> None:
    best = train(written(tmp_path / "wide", epochs=4), data_root=data).best
    narrow = {
        "seed": 9,
        "network": {"hidden": [64, *[120] * 14]},
        "detection": {"width": 12},
        "distil": {"teacher": str(best), "masks": 20.0, "boxes": 20.0},
    }
    result = train(written(tmp_path / "pruned", **narrow), data_root=data, stop_after=3)
    log = [yaml.safe_load(line) for line in (result.last.parent / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss_teacher"] < 0.9 * log[0]["loss_teacher"]
    for row in log:
        assert row["loss"] == pytest.approx(row["loss_masks"] + row["loss_boxes"] + row["loss_teacher"], abs=1e-4)

    classes = recipe()["detection"]["classes"][::-1]
    other = parse_config(recipe(detection={"classes": classes}, distil={"teacher": str(best)}), "other.yaml")
    assert isinstance(other, SegmentationDetectionConfig)
    with pytest.raises(
        UsageError,
        match=r"best\.pt: the teacher's classes of boxes do not fit: they are crate, ball; the recipe's ball, crate",
    ):
        Teacher(other)
    with pytest.raises(ModelError, match=r"teacher\.pt: no such checkpoint"):
        Teacher(config())
