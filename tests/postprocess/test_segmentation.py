"""Masks and overlays against plain upsample-then-argmax (torch and a slow loop)."""

from __future__ import annotations

import numpy as np
import pytest

from perception.picture.conversions import bgr_to_yuv
from perception.picture.letterbox import Letterbox
from perception.postprocess.segmentation import (
    class_counts,
    class_mask,
    class_shares,
    overlay_bgr,
    overlay_planes,
)
from perception.types import ClassMap
from tests.noise import noise, random_planes, smooth_logits

SIZES = [(128, 72), (129, 71), (24, 18), (50, 40), (11, 9), (1, 1), (2, 300), (300, 1), (640, 368)]


def upsample(logits: np.ndarray, box: Letterbox) -> np.ndarray:
    """Slow reference in float64: each frame pixel's centre mapped into the logits, corners clamped."""
    _, h, w = logits.shape
    left, top, right, bottom = box.logits_window(h, w)
    x = left + (np.arange(box.frame_width) + 0.5) * (right - left) / box.frame_width - 0.5
    y = top + (np.arange(box.frame_height) + 0.5) * (bottom - top) / box.frame_height - 0.5
    x, y = np.clip(x, 0, w - 1), np.clip(y, 0, h - 1)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    fx, fy = (x - x0)[None, None, :], (y - y0)[None, :, None]
    v = logits.astype(np.float64)
    upper = v[:, y0][:, :, x0] * (1 - fx) + v[:, y0][:, :, x1] * fx
    lower = v[:, y1][:, :, x0] * (1 - fx) + v[:, y1][:, :, x1] * fx
    return upper * (1 - fy) + lower * fy


def assert_is_argmax(mask: np.ndarray, scores: np.ndarray) -> None:
    """Every pixel has a class within float rounding of the best, and nearly every pixel has the best."""
    chosen = np.take_along_axis(scores, mask[None].astype(int), axis=0)[0]
    assert (scores.max(axis=0) - chosen).max() <= 2e-5 * max(1.0, float(np.abs(scores).max()))
    assert (mask != scores.argmax(axis=0)).mean() <= 1e-3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", SIZES)
def test_mask_is_upsample_then_argmax(seed: int, size: tuple[int, int]) -> None:
    logits = smooth_logits(seed, 7, 18, 24)
    box = Letterbox.fit(*size, 96, 72)
    assert_is_argmax(class_mask(logits, box), upsample(logits, box))


@pytest.mark.parametrize("seed", range(6))
def test_pure_noise_where_every_cell_holds_many_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(19, 10, 13)).astype(np.float32)
    box = Letterbox.fit(317, 211, 52, 40)
    assert_is_argmax(class_mask(logits, box), upsample(logits, box))


@pytest.mark.parametrize("size", SIZES)
def test_same_as_torch_interpolate(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    logits = smooth_logits(9, 11, 18, 24)
    up = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=size[::-1], mode="bilinear", align_corners=False
    )[0].numpy()
    assert_is_argmax(class_mask(logits, Letterbox.fit(*size, 96, 72)), up)


@pytest.mark.parametrize("size", [(160, 90), (90, 160), (97, 31), (1, 50)])
@pytest.mark.parametrize("seed", range(3))
def test_letterbox_window(seed: int, size: tuple[int, int]) -> None:
    logits = smooth_logits(seed, 5, 16, 20)
    box = Letterbox.fit(*size, 83, 67, "letterbox")
    assert_is_argmax(class_mask(logits, box), upsample(logits, box))


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_tiny_logits(h: int, w: int) -> None:
    logits = np.random.default_rng(h * 10 + w).normal(size=(4, h, w)).astype(np.float32)
    box = Letterbox.fit(40, 30, 40, 30)
    assert_is_argmax(class_mask(logits, box), upsample(logits, box))


def test_third_class_that_wins_only_inside_a_cell() -> None:
    # At the corners classes 0 and 1 win; class 2 is second everywhere and best in the middle.
    logits = np.array([[[10, 0]], [[0, 10]], [[6, 6]]], np.float32)
    box = Letterbox.fit(100, 1, 2, 1)
    mask = class_mask(logits, box)[0]
    assert_is_argmax(mask[None], upsample(logits, box))
    assert np.unique(mask).tolist() == [0, 1, 2]


def test_one_class_and_255_classes() -> None:
    box = Letterbox.fit(33, 21, 8, 8)
    assert not class_mask(np.ones((1, 4, 4), np.float32), box).any()
    logits = np.random.default_rng(0).normal(size=(255, 4, 4)).astype(np.float32)
    assert_is_argmax(class_mask(logits, box), upsample(logits, box))


def test_equal_logits_go_to_the_lowest_class() -> None:
    logits = np.zeros((3, 5, 5), np.float32)
    logits[0] = -1
    assert (class_mask(logits, Letterbox.fit(31, 31, 5, 5)) == 1).all()


def test_strange_logits() -> None:
    logits = smooth_logits(3, 4, 9, 9)
    logits[2] = np.nan
    logits[1, 4, 4] = np.inf
    logits[0, 0, 0] = -np.inf
    box = Letterbox.fit(90, 90, 9, 9)
    mask = class_mask(logits, box)
    clean = np.nan_to_num(logits, nan=-1e30, posinf=1e30, neginf=-1e30)
    assert (mask == upsample(clean, box).argmax(0)).mean() > 0.999
    assert not (mask == 2).any()
    assert mask[45, 45] == 1
    assert not class_mask(np.full((3, 2, 2), np.nan, np.float32), box).any()


def test_layouts_and_types_of_logits() -> None:
    logits = smooth_logits(5, 6, 12, 14)
    box = Letterbox.fit(100, 70, 56, 48)
    expected = class_mask(logits, box)
    assert (class_mask(np.asfortranarray(logits), box) == expected).all()
    assert (class_mask(logits.astype(np.float64), box) == expected).all()
    logits.flags.writeable = False
    assert (class_mask(logits, box) == expected).all()


def test_counts_and_shares() -> None:
    logits = smooth_logits(6, 8, 12, 14)
    box = Letterbox.fit(211, 97, 56, 48)
    mask = class_mask(logits, box)
    assert (class_counts(logits, box) == np.bincount(mask.ravel(), minlength=8)).all()
    assert class_shares(logits, box).sum() == pytest.approx(1)
    class_map = ClassMap(logits, box)
    assert (class_map.mask == mask).all()
    assert class_map.shares.dtype == np.float32


@pytest.mark.parametrize("ignored", [(), (0, 3)])
@pytest.mark.parametrize("opacity", [0, 0.3, 0.5, 1])
@pytest.mark.parametrize("size", [(211, 97), (7, 5), (1, 1)])
def test_overlay_bgr(size: tuple[int, int], opacity: float, ignored: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    logits = smooth_logits(7, 6, 12, 14)
    box = Letterbox.fit(*size, 56, 48)
    image = noise(size[1], size[0], 3, seed=rng)
    palette = rng.integers(0, 256, (6, 3), np.uint8)
    out = np.zeros_like(image)
    before = image.copy()
    counts = overlay_bgr(image, logits, box, palette, opacity, out, ignored)
    mask = class_mask(logits, box)
    weight = np.full(6, round(opacity * 64) / 64)
    weight[list(ignored)] = 0
    a = weight[mask][..., None]
    exact = image * (1 - a) + palette[mask] * a
    assert np.abs(out - exact).max() <= 0.5
    assert (image == before).all()
    assert (counts == np.bincount(mask.ravel(), minlength=6)).all()


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("size", [(212, 98), (7, 5), (8, 5), (1, 1)])
def test_overlay_planes(size: tuple[int, int], full_range: bool, matrix: str) -> None:
    rng = np.random.default_rng(2)
    width, height = size
    logits = smooth_logits(8, 6, 12, 14)
    box = Letterbox.fit(*size, 56, 48)
    palette = rng.integers(0, 256, (6, 3), np.uint8)
    source, out = random_planes(width, height, rng, pad=5), random_planes(width, height, rng, pad=3)
    source.matrix, source.full_range = matrix, full_range  # type: ignore[assignment]
    counts = overlay_planes(source, logits, box, palette, 0.6, out, (2,))

    mask = class_mask(logits, box)
    yuv = bgr_to_yuv(palette, matrix, full_range).astype(float)
    weight = np.full(6, round(0.6 * 64) / 64)
    weight[2] = 0
    alpha = weight[mask]
    exact_y = source.y * (1 - alpha) + yuv[mask, 0] * alpha
    assert np.abs(out.y - exact_y).max() <= 0.5
    even = np.pad(mask, ((0, height % 2), (0, width % 2)), mode="edge")
    alpha = weight[even]
    for source_plane, out_plane, channel in ((source.u, out.u, 1), (source.v, out.v, 2)):
        full = source_plane.repeat(2, 0).repeat(2, 1) * (1 - alpha) + yuv[even, channel] * alpha
        exact = full.reshape(full.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
        assert np.abs(out_plane - exact).max() <= 0.5
    assert (counts == np.bincount(mask.ravel(), minlength=6)).all()
    assert out.y.base is not None and (out.y.base[:, width:] == 77).all()  # nothing past the end of a row


def test_refuses_what_does_not_fit() -> None:
    logits = smooth_logits(1, 3, 4, 4)
    box = Letterbox.fit(20, 10, 8, 8)
    image = np.zeros((10, 20, 3), np.uint8)
    palette = np.zeros((3, 3), np.uint8)
    for bad in (np.zeros((256, 2, 2), np.float32), np.zeros((0, 2, 2), np.float32), np.zeros((2, 2), np.float32)):
        with pytest.raises(ValueError, match="logits"):
            class_mask(bad, box)
    with pytest.raises(ValueError, match="image"):
        overlay_bgr(image[:, :-1], logits, box, palette, 0.5, image)
    with pytest.raises(ValueError, match="palette"):
        overlay_bgr(image, logits, box, palette[:2], 0.5, image)
    with pytest.raises(ValueError, match="opacity"):
        overlay_bgr(image, logits, box, palette, 1.5, image)
    with pytest.raises(ValueError, match="adjacent"):
        class_mask(logits, box, np.zeros((10, 40), np.uint8)[:, ::2])
