"""Pixels of no class: a constant under the logits, against an argmax over a channel that is really there."""

from __future__ import annotations

import numpy as np
import pytest

from perception.picture.letterbox import Letterbox
from perception.postprocess import masks
from perception.postprocess.class_maps import LogitsClassMap
from perception.postprocess.segmentation import class_counts, class_mask, overlay
from tests.noise import noise, random_planes, smooth_logits
from tests.postprocess.test_segmentation import SIZES, assert_is_argmax, upsample


def with_channel(logits: np.ndarray, floor: float) -> np.ndarray:
    """The logits and one more channel, of the constant."""
    return np.concatenate((logits, np.full((1, *logits.shape[1:]), floor, np.float32)))


def floors(logits: np.ndarray) -> list[float]:
    """Some that leave few pixels unknown, some that leave many."""
    return [float(q) for q in np.quantile(logits.max(0), [0.0, 0.1, 0.5, 0.9, 1.0])]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", SIZES)
def test_it_is_one_more_channel_of_the_argmax(seed: int, size: tuple[int, int]) -> None:
    logits = smooth_logits(seed, 7, 18, 24)
    box = Letterbox.fit(*size, 96, 72)
    for floor in floors(logits):
        mask = class_mask(logits, box, floor=floor)
        assert_is_argmax(mask, upsample(with_channel(logits, floor), box))
        if mask.size > 100:
            assert (mask == class_mask(with_channel(logits, floor), box)).mean() > 0.9999


@pytest.mark.parametrize("seed", range(8))
def test_noise_where_every_cell_holds_many_classes_and_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rng.integers(1, 20), 10, 13)).astype(np.float32)
    for mode in ("stretch", "letterbox"):
        box = Letterbox.fit(317, 211, 52, 40, mode)
        for floor in floors(logits):
            assert_is_argmax(class_mask(logits, box, floor=floor), upsample(with_channel(logits, floor), box))


def test_unknown_only_inside_a_cell() -> None:
    # both classes reach 10 at a corner of their own and fall to 0 at the other: half way they have 5
    logits = np.array([[[10, 0]], [[0, 10]]], np.float32)
    box = Letterbox.fit(100, 1, 2, 1)
    mask = class_mask(logits, box, floor=7)[0]
    assert np.unique(mask).tolist() == [0, 1, 2]
    assert_is_argmax(mask[None], upsample(with_channel(logits, 7), box))
    assert np.unique(class_mask(logits, box, floor=4.9)).tolist() == [0, 1]


def test_a_class_that_just_reaches_it_is_known() -> None:
    logits = np.full((2, 4, 4), 3, np.float32)
    box = Letterbox.fit(17, 9, 8, 8)
    assert (class_mask(logits, box, floor=3) == 0).all()
    assert (class_mask(logits, box, floor=np.nextafter(np.float32(3), np.float32(4))) == 2).all()


@pytest.mark.parametrize("classes", [1, 255])
def test_fewest_and_most_classes(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(size=(classes, 5, 6)).astype(np.float32)
    box = Letterbox.fit(61, 43, 24, 20)
    floor = float(np.median(logits.max(0)))
    mask = class_mask(logits, box, floor=floor)
    assert_is_argmax(mask, upsample(with_channel(logits, floor), box))
    assert (mask == classes).any() and (mask != classes).any()


def test_above_every_logit_nothing_is_known_and_below_all_everything() -> None:
    logits = smooth_logits(1, 4, 9, 9) * 1e20
    logits[0, 4, 4], logits[1, 0, 0], logits[2, 8, 8] = np.inf, np.nan, -np.inf
    box = Letterbox.fit(90, 70, 36, 36)
    assert (class_mask(logits, box, floor=3e38) == 4).all()
    np.testing.assert_array_equal(class_mask(logits, box, floor=-3e38), class_mask(logits, box))
    for wrong in (np.inf, -np.inf, np.nan, 3.1e38):
        with pytest.raises(ValueError, match="floor"):
            class_mask(logits, box, floor=wrong)


@pytest.mark.parametrize("seed", range(4))
def test_counts_and_shares_have_the_unknown_last(seed: int) -> None:
    logits = smooth_logits(seed, 6, 12, 14)
    box = Letterbox.fit(211, 97, 56, 48)
    floor = floors(logits)[2]
    mask = class_mask(logits, box, floor=floor)
    expected = np.bincount(mask.ravel(), minlength=7)
    assert 0 < expected[6] < mask.size
    np.testing.assert_array_equal(class_counts(logits, box, floor), expected)
    class_map = LogitsClassMap(logits, box, (2,), floor)
    assert (class_map.classes, class_map.unknown, class_map.ignored) == (6, 6, (2, 6))
    np.testing.assert_allclose(class_map.shares, expected / mask.size, atol=1e-7)
    np.testing.assert_array_equal(
        class_map.resized(53, 31), class_mask(logits, Letterbox.fit(53, 31, 56, 48), floor=floor)
    )
    plain = LogitsClassMap(logits, box, (2,))
    assert plain.unknown is None and plain.ignored == (2,) and plain.shares.shape == (6,)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("size", [(211, 97), (64, 48), (7, 5), (1, 1)])
def test_unknown_pixels_stay_as_they_are(size: tuple[int, int], planes: bool) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        logits = smooth_logits(seed, 6, 12, 14)
        box = Letterbox.fit(*size, 56, 48)
        floor = floors(logits)[seed % 5]
        palette = rng.integers(0, 256, (6, 3), np.uint8)
        mask = class_mask(logits, box, floor=floor)
        colors = np.concatenate((palette, np.zeros((1, 3), np.uint8)))
        made: list[np.ndarray] = []
        for draw in range(2):
            if planes:
                picture, out = random_planes(*size, seed), random_planes(*size, seed + 100)
            else:
                picture = noise(size[1], size[0], 3, seed=seed)
                out = np.zeros_like(picture)
            if draw:
                counts = overlay(picture, logits, box, palette, 0.7, out, (1,), floor)
                np.testing.assert_array_equal(counts, np.bincount(mask.ravel(), minlength=7))
                LogitsClassMap(logits, box, (1,), floor).overlay(picture, palette, 0.7, out)
            else:  # the kernels that blend a finished mask
                masks.overlay(picture, mask, colors, 0.7, out, (1, 6))
            made.append(np.concatenate([out.y.ravel(), out.u.ravel(), out.v.ravel()]) if planes else out)
        np.testing.assert_array_equal(made[0], made[1])
        if not planes:
            left = np.isin(mask, (1, 6))
            np.testing.assert_array_equal(made[1][left], picture[left])
