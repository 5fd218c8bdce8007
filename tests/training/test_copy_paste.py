"""Things of one picture put into another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perception.training.data.augment import Augmenter  # noqa: E402
from perception.training.data.batches import BatchMaker  # noqa: E402
from perception.training.data.boxes import BoxLabels  # noqa: E402
from perception.training.data.copy_paste import copy_paste  # noqa: E402
from perception.training.data.masks import Sample  # noqa: E402
from perception.training.data.sets import MaskSets  # noqa: E402
from perception.training.recipes.segmentation_detection import AugmentConfig, CopyPasteConfig, CropPhase  # noqa: E402
from tests.training.pictures import write_folder  # noqa: E402
from tests.training.test_data import open_train  # noqa: E402

SIZE = (60, 80)


def scene(grey: int) -> Sample:
    return Sample("scene", np.full((*SIZE, 3), grey, np.uint8), np.zeros(SIZE, np.uint8))


def with_thing(grey: int, class_id: int, where: tuple[slice, slice], value: int) -> Sample:
    sample = scene(grey)
    assert sample.labels is not None
    sample.image[where] = value
    sample.labels[where] = class_id
    return sample


@pytest.mark.parametrize("seed", range(12))
def test_a_thing_arrives_whole_at_its_height_with_its_labels(seed: int) -> None:
    donor = with_thing(100, 2, (slice(20, 35), slice(50, 58)), 240)
    sample = scene(100)
    result = copy_paste(sample, donor, CopyPasteConfig(classes=[2]), np.random.default_rng(seed))
    assert result.labels is not None and sample.labels is not None
    rows, columns = np.nonzero(result.labels == 2)
    assert (rows.min(), rows.max()) == (20, 34) and columns.max() - columns.min() == 7 and len(rows) == 15 * 8
    light = sample.image.mean() / donor.image.mean()
    inner = result.image[23:32, columns.min() + 3 : columns.max() - 2]
    assert abs(inner.astype(float) - 240 * light).max() <= 1
    far = np.ones(SIZE, bool)
    far[17:38, max(columns.min() - 3, 0) : columns.max() + 4] = False
    assert (result.image[far] == 100).all() and (result.labels[far] == 0).all()
    assert (sample.image == 100).all() and (sample.labels == 0).all()  # the picture itself stays as it is


def test_things_move_and_turn() -> None:
    donor = with_thing(100, 1, (slice(10, 30), slice(5, 25)), 200)
    assert donor.labels is not None
    donor.labels[10:20, 15:25] = 0  # the upper right corner is missing
    config = CopyPasteConfig(classes=[1])
    results = [copy_paste(scene(100), donor, config, np.random.default_rng(seed)).labels for seed in range(40)]
    lefts, right_is_missing = set(), set()
    for labels in results:
        assert labels is not None
        columns = np.flatnonzero((labels == 1).any(0))
        lefts.add(int(columns[0]))
        right_is_missing.add(bool(labels[10, columns[0]]))
    assert len(lefts) > 15 and right_is_missing == {True, False}


def test_only_large_things_of_the_classes_are_taken_and_not_too_many() -> None:
    donor = with_thing(100, 1, (slice(4, 50), slice(2, 6)), 200)
    assert donor.labels is not None
    for x in range(10, 74, 12):
        donor.labels[20:26, x : x + 6] = 2
    donor.labels[55:57, 70:72] = 3
    sample = scene(100)
    assert copy_paste(sample, donor, CopyPasteConfig(classes=[3]), np.random.default_rng(0)) is sample
    for seed in range(10):
        labels = copy_paste(sample, donor, CopyPasteConfig(classes=[2, 3], most=2), np.random.default_rng(seed)).labels
        assert labels is not None and set(np.unique(labels)) == {0, 2}
        assert 36 <= (labels == 2).sum() <= 72


def test_a_donor_of_another_size_is_stretched() -> None:
    labels = np.zeros((120, 160), np.uint8)
    labels[40:60, 100:120] = 1
    donor = Sample("big", np.full((120, 160, 3), 100, np.uint8), labels)
    result = copy_paste(scene(100), donor, CopyPasteConfig(classes=[1]), np.random.default_rng(0)).labels
    assert result is not None and result.shape == SIZE
    rows, columns = np.nonzero(result == 1)
    assert (rows.min(), rows.max()) == (20, 29) and columns.max() - columns.min() == 9


def test_boxes_are_made_anew() -> None:
    known = np.ones(1, bool)

    def boxes_of(labels: np.ndarray) -> BoxLabels:
        y, x = np.nonzero(labels == 1)
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        return BoxLabels(box, np.zeros(1, np.int64), np.zeros((1, 1), bool), known)

    donor = with_thing(100, 1, (slice(20, 40), slice(10, 30)), 200)
    sample = scene(100)
    config = CopyPasteConfig(classes=[1])
    assert copy_paste(sample, donor, config, np.random.default_rng(1), boxes_of).boxes is None
    boxed = replace(sample, boxes=BoxLabels.empty(known))
    result = copy_paste(boxed, donor, config, np.random.default_rng(1), boxes_of).boxes
    assert result is not None and len(result) == 1
    assert (result.boxes[0, 2:] - result.boxes[0, :2]).tolist() == [20, 20]


def test_batches_paste_where_the_recipe_says_so(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=6)
    folder = open_train(root)
    plain = AugmentConfig(
        crops=[CropPhase(size=(96, 64))], scale=(1, 1), stretch=0, flip=0, color=0, blur=0, noise=0, rare_chance=0
    )
    pasting = plain.model_copy(update={"copy_paste": CopyPasteConfig(chance=1, classes=[2])})

    def pixels(config: AugmentConfig) -> int:
        batches = BatchMaker(MaskSets([folder]), Augmenter(config, 255, (96, 72)), 2, 0)
        return sum(int((batch.labels == 2).sum()) for epoch in range(3) for batch in batches.epoch(epoch))

    assert pixels(pasting) > 1.2 * pixels(plain)
