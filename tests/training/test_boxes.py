"""Boxes that move with their picture, and boxes made from masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perception.picture.letterbox import PAD  # noqa: E402
from perception.training.data.augment import Augmenter  # noqa: E402
from perception.training.data.boxes import BoxLabels, joined  # noqa: E402
from perception.training.data.components import boxes_from_mask  # noqa: E402
from perception.training.data.masks import Sample  # noqa: E402
from perception.training.recipes.detection import BoxAugmentConfig, MaskBoxesConfig  # noqa: E402
from perception.training.recipes.segmentation_detection import AugmentConfig, CropPhase  # noqa: E402

QUIET = AugmentConfig(crops=[CropPhase(size=(64, 64))], color=0, blur=0, noise=0)
KNOWN = np.array([True, True, False])


def labels(boxes: list[list[float]], ids: list[int]) -> BoxLabels:
    unsure = np.zeros((len(ids), 3), bool)
    return BoxLabels(np.array(boxes, np.float32).reshape(-1, 4), np.array(ids, np.int64), unsure, KNOWN)


def test_a_matrix_moves_boxes_as_it_moves_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        image = np.zeros((60, 80), np.uint8)
        x, y = int(rng.integers(5, 40)), int(rng.integers(5, 30))
        w, h = int(rng.integers(10, 30)), int(rng.integers(10, 25))
        image[y : y + h, x : x + w] = 255
        scale = rng.uniform(0.5, 2, 2)
        matrix = np.array([[scale[0], 0, rng.uniform(-30, 30)], [0, scale[1], rng.uniform(-30, 30)]])
        if rng.random() < 0.5:
            matrix[0] = -matrix[0]
            matrix[0, 2] += 99
        size = (100, 90)
        moved = labels([[x, y, x + w, y + h]], [1]).warped(matrix, size, 0.0, 0.0)
        pixels = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR) >= 128
        if not pixels.any():
            continue
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(moved.boxes[0] - expected).max() <= 1.05


def test_what_is_hardly_visible_or_tiny_is_ignored_and_what_is_outside_is_gone() -> None:
    four = labels([[0, 0, 20, 20], [56, 0, 76, 20], [30, 30, 34, 50], [70, 70, 90, 90]], [0, 1, 1, 0])
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    moved = four.warped(identity, (64, 64), 0.5, 8.0)
    assert moved.class_ids.tolist() == [0, -1, -1]
    assert moved.boxes.tolist() == [[0, 0, 20, 20], [56, 0, 64, 20], [30, 30, 34, 50]]
    assert moved.unsure.shape == (3, 3)


def test_no_boxes_stay_no_boxes() -> None:
    nothing = BoxLabels.empty(KNOWN)
    moved = nothing.warped(np.array([[2.0, 0, 5], [0, 2, 5]]), (64, 64), 0.5, 8.0)
    assert len(moved) == len(moved.moved(3, 4)) == len(joined([nothing, moved])) == 0


def test_a_joint_picture_knows_only_what_all_its_parts_know() -> None:
    one = labels([[0, 0, 9, 9]], [0])
    other = BoxLabels(one.boxes, one.class_ids, one.unsure, np.array([True, False, True]))
    both = joined([one, other.moved(10, 20)])
    assert both.known.tolist() == [True, False, False]
    assert both.boxes.tolist() == [[0, 0, 9, 9], [10, 20, 19, 29]]


@pytest.mark.parametrize("mosaic", [False, True])
def test_boxes_stay_on_what_they_were_drawn_around(mosaic: bool) -> None:
    rng = np.random.default_rng(1)
    rules = BoxAugmentConfig(scale=(0.35, 1.5), mosaic_scale=(0.3, 1.2), min_visible=0, min_side=1)
    augment = Augmenter(QUIET, 255, (96, 72), rules)

    def draw() -> Sample:
        width, height = int(rng.integers(60, 140)), int(rng.integers(60, 140))
        image = np.zeros((height, width, 3), np.uint8)
        x, y, w, h = rng.integers(5, 20), rng.integers(5, 20), rng.integers(20, 35), rng.integers(20, 35)
        image[y : y + h, x : x + w] = 255
        return Sample("a", image, None, labels([[x, y, x + w, y + h]], [0]))

    for _ in range(40):
        crop = (64, 96)
        made = augment.mosaic([draw() for _ in range(4)], crop, rng) if mosaic else augment(draw(), crop, rng)
        assert made.image.shape == (96, 64, 3)
        assert made.labels is None and made.boxes is not None
        white = made.image[..., 0] > 200  # the border is grey
        drawn = np.zeros_like(white)
        for x0, y0, x1, y1 in np.rint(made.boxes.boxes).astype(int).tolist():
            drawn[y0:y1, x0:x1] = True
        # Pixels on the rim are mixed: at most one on each side of each box.
        rim = 4 * 4 * 60
        assert (white & ~drawn).sum() <= rim / 4
        assert (drawn & ~white).sum() <= rim


def test_shrinking_averages_instead_of_skipping() -> None:
    image = np.zeros((120, 120, 3), np.uint8)
    image[:, ::2] = 200  # stripes that bilinear sampling at a quarter would hit or miss
    rules = BoxAugmentConfig(scale=(0.25, 0.25), stretch=0)
    plain = QUIET.model_copy(update={"flip": 0.0})
    made = Augmenter(plain, 255, (120, 120), rules)(Sample("a", image, None), (64, 64), np.random.default_rng(0))
    inside = made.image[made.image[..., 0] != PAD][:, 0]
    assert abs(float(np.median(inside)) - 100) < 15


MASKS = MaskBoxesConfig.model_validate(
    {
        "components": {
            "car": {"name": "car", "aspect": [0.7, 2.2], "fill": 0.7, "min_area": 50, "gap": 3, "unsure": ["truck"]},
            "man": {"name": "person", "aspect": [0.2, 0.7], "fill": 0.4, "min_area": 30},
        },
        "absent": ["bus"],
    }
)
SEGMENTS, CLASSES = ["ground", "car", "man"], ["person", "car", "truck", "bus", "bicycle"]


def test_components_become_boxes_and_doubtful_ones_are_ignored() -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[10:30, 10:40] = 1  # a car
    mask[10:20, 60:100] = 1  # two cars that touch
    mask[10:40, 80:100] = 1
    mask[60:80, 10:40] = 1  # two cars with a pole between
    mask[60:80, 42:70] = 1
    mask[90:93, 150:154] = 1  # a speck
    mask[50:90, 120:130] = 2  # a man
    mask[50:70, 150:180] = 2  # a group
    found = boxes_from_mask(mask, MASKS, SEGMENTS, CLASSES)
    kept = found.class_ids >= 0
    assert found.boxes[kept].tolist() == [[10, 10, 40, 30], [120, 50, 130, 90]]
    assert found.class_ids[kept].tolist() == [1, 0]
    ignored = {tuple(box) for box in found.boxes[~kept].tolist()}
    assert ignored == {(60, 10, 100, 40), (10, 60, 40, 80), (42, 60, 70, 80), (150, 90, 154, 93), (150, 50, 180, 70)}
    assert found.known.tolist() == [True, True, False, True, False]
    assert found.unsure[kept].tolist() == [[False, False, True, False, False], [False] * 5]


def test_a_speck_does_not_make_its_neighbour_doubtful() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:30, 10:40] = 1
    mask[10:12, 41:43] = 1
    found = boxes_from_mask(mask, MASKS, SEGMENTS, CLASSES)
    assert found.class_ids.tolist() == [1, -1]


def test_an_empty_mask_has_no_boxes() -> None:
    found = boxes_from_mask(np.zeros((20, 20), np.uint8), MASKS, SEGMENTS, CLASSES)
    assert len(found) == 0
    assert found.known.tolist() == [True, True, False, True, False]
