"""What a set of pictures labels: its ids, the classes that it does not know, and what they weigh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perception.errors import SourceError  # noqa: E402
from perception.training.data.masks import Sample, SegmentationFolder  # noqa: E402
from perception.training.losses.segmentation import SegmentationLoss  # noqa: E402
from perception.training.recipes.data import MaskSetConfig  # noqa: E402
from perception.training.recipes.segmentation_detection import LossConfig  # noqa: E402
from tests.training.sets import NAMES  # noqa: E402


@pytest.mark.parametrize("lovasz", [0.0, 0.7])
@pytest.mark.parametrize("ohem", [1.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_what_a_set_does_not_label_gets_no_gradient_there(seed: int, ohem: float, lovasz: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(3, 5, 6, 8, generator=generator)).requires_grad_()
    known = torch.tensor([[True] * 5, [True, False, True, False, False], [False, True, True, True, False]])
    labels = torch.full((3, 24, 32), 255)
    for row in range(3):
        there = known[row].nonzero().squeeze(1)
        drawn = there[torch.randint(len(there), (24, 32), generator=generator)]
        counted = torch.rand(24, 32, generator=generator) < 0.8
        labels[row][counted] = drawn[counted]
    loss = SegmentationLoss(LossConfig(ohem=ohem, lovasz=lovasz), torch.ones(5), 255)
    value = loss(logits, labels, known, torch.tensor([1.0, 0.5, 2.0]))
    assert bool(torch.isfinite(value))
    value.backward()
    assert logits.grad is not None
    of_class = logits.grad.abs().amax((2, 3))
    assert (of_class[~known] == 0).all()
    assert (of_class[known] > 0).all()


def test_pixels_weigh_what_their_set_weighs() -> None:
    """Cross entropy of each picture by itself, weighted by hand."""
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(2, 3, 8, 8, generator=generator), torch.randint(3, (2, 8, 8), generator=generator)
    labels[1, :4] = 255
    weights = torch.tensor([0.25, 3.0])
    loss = SegmentationLoss(LossConfig(), torch.ones(3), 255)
    got = loss(logits, labels, None, weights)
    each = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="none").sum((1, 2))
    assert float(got) == pytest.approx(float((each * weights).sum() / (64 + 32)), rel=1e-5)


def folder_of(root: Path, rows: list[list[int]], name: str = "set", **config: Any) -> SegmentationFolder:
    """A set with a picture for each row of ids, side by side in its label."""
    for kind in ("images", "labels"):
        (root / name / kind).mkdir(parents=True, exist_ok=True)
    for i, values in enumerate(rows):
        label = np.repeat(np.array(values, np.uint8), 4)[None].repeat(8, 0)
        cv2.imwrite(str(root / name / "images" / f"{i}.png"), np.zeros((*label.shape, 3), np.uint8))
        cv2.imwrite(str(root / name / "labels" / f"{i}.png"), label)
    folders = {"images": f"{name}/images", "labels": f"{name}/labels"}
    return SegmentationFolder(MaskSetConfig.model_validate({**folders, **config}), root, NAMES)


def ids_of(sample: Sample) -> list[int]:
    assert sample.labels is not None
    return sample.labels[0, ::4].tolist()


def test_ids_of_a_set_become_those_of_the_recipe(tmp_path: Path) -> None:
    ids = {7: "ball", 30: "box", 31: "box", 0: "ground"}
    folder = folder_of(tmp_path, [[7, 30, 31], [0, 7, 200]], ids=ids, ignore=[200])
    assert [ids_of(sample) for sample in folder.samples] == [[2, 1, 1], [0, 2, 255]]
    assert folder.class_pixels().tolist() == [32, 64, 64]


def test_an_id_that_nobody_knows_is_a_fault_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"1 of 2 samples .*1\.png: unknown class ids \[9\]"):
        folder_of(tmp_path, [[7, 30], [7, 9]], ids={7: "ball", 30: "box"})


def test_ignored_ids_of_our_own_count_for_nothing(tmp_path: Path) -> None:
    """An ignored id that is a class of the recipe must not be learnt as that class."""
    folder = folder_of(tmp_path, [[0, 1, 2, 99]], ignore=[1, 99])
    assert ids_of(folder[0]) == [0, 255, 2, 255]


def test_classes_that_a_set_does_not_label_are_ignored_in_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [[0, 1, 2]], labelled=["ground", "box"])
    (sample,) = folder.samples
    assert ids_of(sample) == [0, 1, 255]
    assert sample.known is not None and sample.known.tolist() == [True, True, False]
    assert folder_of(tmp_path, [[0, 1, 2]], name="all")[0].known is None


def test_pictures_without_a_label_are_passed_over_where_the_recipe_says_so(tmp_path: Path) -> None:
    folder_of(tmp_path, [[0], [1], [2]])
    (tmp_path / "set" / "labels" / "1.png").unlink()
    config = {"images": "set/images", "labels": "set/labels"}
    with pytest.raises(SourceError, match="missing label"):
        SegmentationFolder(MaskSetConfig.model_validate(config), tmp_path, NAMES)
    folder = SegmentationFolder(MaskSetConfig.model_validate({**config, "partly_labelled": True}), tmp_path, NAMES)
    assert [sample.name for sample in folder.samples] == ["0", "2"]
    only = {**config, "partly_labelled": True, "only": ["[12]"], "exclude": ["1"]}
    assert [s.name for s in SegmentationFolder(MaskSetConfig.model_validate(only), tmp_path, NAMES).samples] == ["2"]


def test_labels_that_are_not_beside_the_pictures_are_looked_for_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, [[0, 1]])
    (tmp_path / "work").mkdir()
    (tmp_path / "set" / "labels").rename(tmp_path / "work" / "made")
    config = MaskSetConfig.model_validate({"images": "set/images", "labels": "made"})
    with pytest.raises(SourceError, match=r"no such folder; check data\.root in the recipe"):
        SegmentationFolder(config, tmp_path, NAMES)
    monkeypatch.chdir(tmp_path / "work")
    assert [ids_of(sample) for sample in SegmentationFolder(config, tmp_path, NAMES).samples] == [[0, 1]]
