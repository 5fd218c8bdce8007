"""Masks that an engine made: the same pictures as from the logits, and slow loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception.drawing.annotator import Annotator
from perception.picture.letterbox import Letterbox
from perception.postprocess import masks, segmentation
from perception.postprocess.class_maps import MaskClassMap
from perception.types import Frame, Planes, Prediction
from tests.noise import noise, random_planes, smooth_logits

SIZES = [(128, 72), (129, 71), (1, 1), (2, 30), (31, 1), (64, 48)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", SIZES)
def test_overlays_are_those_of_the_logits(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    logits = smooth_logits(seed, 7, 18, 24)
    box = Letterbox.fit(*size, 96, 72)
    mask = segmentation.class_mask(logits, box)
    palette = rng.integers(0, 256, (7, 3), np.uint8)
    image = noise(size[1], size[0], 3, seed=rng)
    opacity = float(rng.random())
    got, expected = np.empty_like(image), np.empty_like(image)
    counts = masks.overlay(image, mask, palette, opacity, got, [2, 3])
    np.testing.assert_array_equal(counts, segmentation.overlay(image, logits, box, palette, opacity, expected, [2, 3]))
    np.testing.assert_array_equal(got, expected)
    planes, of_mask, of_logits = (random_planes(*size, rng) for _ in range(3))
    masks.overlay(planes, mask, palette, opacity, of_mask, [2, 3])
    segmentation.overlay(planes, logits, box, palette, opacity, of_logits, [2, 3])
    for name in "yuv":
        np.testing.assert_array_equal(getattr(of_mask, name), getattr(of_logits, name), name)


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(96, 72), (640, 360), (90, 200), (33, 17), (1, 1)])
@pytest.mark.parametrize("shape", [(72, 96), (18, 24), (50, 31)])
def test_the_nearest_pixel_of_the_mask(mode: str, size: tuple[int, int], shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 9, shape, np.uint8)
    box = Letterbox.fit(*size, 96, 72, mode)  # type: ignore[arg-type]
    got = masks.to_frame(labels, box)
    assert got.flags.c_contiguous and got.shape == size[::-1]
    for y in range(0, size[1], 7):
        for x in range(0, size[0], 5):
            in_input = (
                box.left + (x + 0.5) * box.width / size[0],
                box.top + (y + 0.5) * box.height / size[1],
            )
            column, row = in_input[0] * shape[1] / 96, in_input[1] * shape[0] / 72
            if min(abs(column - round(column)), abs(row - round(row))) > 1e-6:  # not on the border of two
                assert got[y, x] == labels[min(int(row), shape[0] - 1), min(int(column), shape[1] - 1)]


def test_same_as_opencv_nearest() -> None:
    labels = np.random.default_rng(1).integers(0, 9, (72, 96), np.uint8)
    for size in ((960, 720), (192, 144), (48, 36), (320, 200)):
        expected = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
        assert (masks.to_frame(labels, Letterbox.fit(*size, 96, 72)) == expected).mean() > 0.99


def test_a_class_map_of_a_ready_mask() -> None:
    labels = np.zeros((72, 96), np.uint8)
    labels[:, 24:] = 2
    class_map = MaskClassMap(labels, 4, Letterbox.fit(192, 144, 96, 72), (3,))
    assert class_map.classes == 4 and class_map.ignored == (3,)
    assert class_map.mask.shape == (144, 192)
    np.testing.assert_array_equal(class_map.shares, np.array([0.25, 0, 0.75, 0], np.float32))


@pytest.mark.parametrize("planes", [False, True])
def test_drawn_like_any_class_map(planes: bool) -> None:
    from tests.drawing.test_annotator import make_card, quarters

    rng = np.random.default_rng(2)
    from_logits = quarters(128, 96)
    ready = MaskClassMap(from_logits.mask, 4, from_logits.letterbox)
    image = noise(96, 128, 3, seed=rng)
    frame = Frame(planes=random_planes(128, 96, rng)) if planes else Frame(image)
    pictures = []
    for class_map in (from_logits, ready):
        picture = Annotator(make_card())(Prediction(frame, class_map=class_map))
        pictures.append(
            np.concatenate([picture.y.ravel(), picture.u.ravel()]) if isinstance(picture, Planes) else picture
        )
    np.testing.assert_array_equal(*pictures)
    counted = np.bincount(from_logits.mask.ravel(), minlength=4) / from_logits.mask.size
    for class_map in (from_logits, ready):
        np.testing.assert_allclose(class_map.shares, counted, rtol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    image, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    palette = np.zeros((3, 3), np.uint8)
    with pytest.raises(ValueError, match="class 3, the palette 3 colours"):
        masks.overlay(image, mask + 3, palette, 0.5, image)
    with pytest.raises(ValueError, match="mask must be"):
        masks.overlay(image, mask.astype(np.int64), palette, 0.5, image)
    with pytest.raises(ValueError, match="image must be"):
        masks.overlay(image[:2], mask, palette, 0.5, image)
