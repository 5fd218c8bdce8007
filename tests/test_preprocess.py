"""Resizing and colour conversion against OpenCV, swscale and float arithmetic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception.picture.conversions import axis_taps, bgr_to_yuv
from perception.picture.letterbox import PAD, Letterbox, planes_to_bgr, to_input
from perception.types import Frame, Planes
from tests.noise import noise, random_planes


def exact_bgr(planes: Planes) -> np.ndarray:
    """Float64 BGR, not rounded, straight from the standards' definitions."""
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[planes.matrix]
    y, u, v = (p.astype(np.float64) for p in (planes.y, planes.u, planes.v))
    if planes.full_range:
        y, u, v = y / 255, (u - 128) / 255, (v - 128) / 255
    else:
        y, u, v = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    u, v = (p.repeat(2, 0).repeat(2, 1)[: y.shape[0], : y.shape[1]] for p in (u, v))
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([b, g, r], axis=-1) * 255, 0, 255)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1), (2, 1), (1, 2), (70, 3)])
def test_planes_to_bgr_is_rounded_exactly(size: tuple[int, int], full_range: bool, matrix: str) -> None:
    planes = random_planes(*size, 1, chroma=(60, 200), pad=7, matrix=matrix, full_range=full_range)
    exact = exact_bgr(planes)
    got = planes_to_bgr(planes)
    assert np.abs(got - exact).max() <= 0.5 + 1e-2  # 16 fractional bits
    assert (got == np.rint(exact)).mean() > 0.99


def test_planes_to_bgr_is_what_swscale_makes() -> None:
    av = pytest.importorskip("av")
    y, x = np.mgrid[0:96, 0:128]
    image = np.stack([x * 2, y * 2, 255 - x], axis=-1).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
    buffer = np.ascontiguousarray(frame.to_ndarray())
    u, v = buffer[96:120].reshape(48, 64), buffer[120:].reshape(48, 64)
    ours = planes_to_bgr(Planes(buffer[:96], u, v)).astype(int)
    theirs = frame.to_ndarray(format="bgr24").astype(int)
    assert np.abs(ours - theirs).mean() < 1.5  # swscale rounds its tables more coarsely
    assert np.abs(ours - theirs).max() <= 6


def test_bgr_to_yuv_goes_back() -> None:
    rng = np.random.default_rng(2)
    colors = rng.integers(0, 256, (500, 3), np.uint8)
    for matrix in ("bt601", "bt709"):
        for full_range in (False, True):
            yuv = bgr_to_yuv(colors, matrix, full_range)
            planes = [np.ascontiguousarray(yuv[:, i]).reshape(1, -1) for i in range(3)]
            planes[0] = planes[0].repeat(2, 1)
            back = planes_to_bgr(Planes(*planes, matrix=matrix, full_range=full_range))[0, ::2]  # type: ignore
            assert np.abs(back.astype(int) - colors).max() <= 3


def slow_axis(samples: int, extent: float, size: int) -> np.ndarray:
    """Dense ``[size, samples]``: overlaps of intervals when shrinking, interpolation of centres when enlarging."""
    table = np.zeros((size, samples))
    step = extent / size
    for i in range(size):
        for s in range(samples):
            if step >= 1:
                table[i, s] = max(0.0, min((i + 1) * step, s + 1) - max(i * step, s))
            else:
                p = min(max((i + 0.5) * step - 0.5, 0), samples - 1)
                table[i, s] = max(0.0, 1 - abs(p - s))
    return table / table.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 16, 33])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 33, 50])
def test_taps(samples: int, size: int) -> None:
    for extent in (samples, samples - 0.5):
        starts, weights = axis_taps(samples, extent, size)
        dense = np.zeros((size, samples))
        for i, s in enumerate(starts):
            assert 0 <= s <= samples - weights.shape[1]
            dense[i, s : s + weights.shape[1]] = weights[i]
        np.testing.assert_allclose(dense, slow_axis(samples, extent, size), atol=1e-5)


@pytest.mark.parametrize("source", [(128, 72), (97, 61), (48, 36), (20, 10), (1, 1), (500, 9)])
@pytest.mark.parametrize("target", [(48, 36), (33, 50), (1, 1)])
def test_bgr_input_against_dense_matrices(source: tuple[int, int], target: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    image = noise(source[1], source[0], 3, seed=rng)
    got, box = to_input(Frame(image), *target)
    horizontal, vertical = (slow_axis(a, a, b) for a, b in zip(source, target, strict=True))
    exact = np.einsum("yh,hwc,xw->yxc", vertical, image, horizontal)
    assert np.abs(got - exact).max() <= 0.501
    assert not box.padded


def test_shrinking_is_inter_area() -> None:
    image = noise(72, 128, 3, seed=4)
    theirs = cv2.resize(image, (48, 36), interpolation=cv2.INTER_AREA)
    assert np.abs(to_input(Frame(image), 48, 36)[0].astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("kind", [("bt601", False), ("bt709", False), ("bt601", True)])
@pytest.mark.parametrize("size", [(128, 72), (127, 71), (63, 47), (5, 3), (1, 1)])
def test_planes_input_against_dense_matrices(size: tuple[int, int], kind: tuple[str, bool]) -> None:
    planes = random_planes(*size, 5, chroma=(60, 200), pad=3, matrix=kind[0], full_range=kind[1])
    target = (48, 36)
    got, _ = to_input(Frame(planes=planes), *target)

    def resize(plane: np.ndarray, width: float, height: float) -> np.ndarray:
        vertical = slow_axis(plane.shape[0], height, target[1])
        return vertical @ plane @ slow_axis(plane.shape[1], width, target[0]).T

    y = resize(planes.y, *size)
    u, v = (resize(p, size[0] / 2, size[1] / 2) for p in (planes.u, planes.v))
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[kind[0]]
    luma, chroma = ((y / 255), 255) if kind[1] else ((y - 16) / 219, 224)
    r = luma + 2 * (1 - kr) * (v - 128) / chroma
    b = luma + 2 * (1 - kb) * (u - 128) / chroma
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    exact = np.clip(np.stack([b, g, r], axis=-1) * 255, 0, 255)
    assert np.abs(got - exact).max() <= 0.51


def test_planes_input_is_close_to_convert_then_area() -> None:
    y, x = np.mgrid[0:180, 0:320]
    texture = np.random.default_rng(6).integers(-20, 20, (180, 320))
    planes = Planes(
        np.clip(120 + 30 * np.sin(x / 9) + 20 * np.cos(y / 5) + texture, 60, 190).astype(np.uint8),
        (128 + 25 * np.sin(x / 20))[::2, ::2].astype(np.uint8),
        (128 + 25 * np.cos(y / 15))[::2, ::2].astype(np.uint8),
    )
    ours = to_input(Frame(planes=planes), 120, 90)[0].astype(int)
    area = cv2.resize(planes_to_bgr(planes), (120, 90), interpolation=cv2.INTER_AREA)
    assert np.abs(ours - area).mean() < 0.5
    assert np.abs(ours - area).max() <= 2


def test_letterboxed_input() -> None:
    image = np.full((50, 100, 3), 200, np.uint8)
    for out in (None, np.zeros((64, 64, 3), np.uint8)):
        got, box = to_input(Frame(image), 64, 64, "letterbox", out)
        assert out is None or got is out
        assert (box.left, box.top, box.width, box.height) == (0, 16, 64, 32)
        assert (got[16:48] == 200).all()
        assert (got[:16] == PAD).all()
        assert (got[48:] == PAD).all()
    tall, box = to_input(Frame(image.transpose(1, 0, 2).copy()), 64, 64, "letterbox")
    assert (tall[:, 16:48] == 200).all() and (tall[:, :16] == PAD).all() and (tall[:, 48:] == PAD).all()


def test_same_size_is_a_copy() -> None:
    image = noise(30, 40, 3, seed=7)
    got, _ = to_input(Frame(image), 40, 30)
    assert (got == image).all()
    assert not np.shares_memory(got, image)


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("sizes", [(1280, 720, 480, 360), (33, 77, 640, 640), (1, 1, 32, 16), (5000, 3, 64, 64)])
def test_letterbox_inverts_itself(sizes: tuple[int, int, int, int], mode: str) -> None:
    box = Letterbox.fit(*sizes, mode)  # type: ignore[arg-type]
    assert box.left >= 0 and box.left + box.width <= box.input_width and box.width >= 1
    assert box.top >= 0 and box.top + box.height <= box.input_height and box.height >= 1
    whole = np.array([[0, 0, sizes[0], sizes[1]]], np.float32)
    placed = [[box.left, box.top, box.left + box.width, box.top + box.height]]
    np.testing.assert_allclose(box.to_input(whole), placed, rtol=1e-5)
    rng = np.random.default_rng(8)
    boxes = np.sort(rng.uniform(0, 1, (50, 2, 2)), axis=1).reshape(50, 4) * np.tile(sizes[:2], 2)
    np.testing.assert_allclose(box.to_frame(box.to_input(boxes)), boxes, atol=1e-3 * max(sizes))
    assert box.to_frame(np.array([[-1e4, -1e4, 1e4, 1e4]], np.float32)).tolist() == whole.tolist()


def test_letterbox_refuses() -> None:
    with pytest.raises(ValueError, match="positive"):
        Letterbox.fit(0, 10, 10, 10)
    with pytest.raises(ValueError, match="mode"):
        Letterbox.fit(10, 10, 10, 10, "crop")  # type: ignore[arg-type]
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="out must be"):
        to_input(Frame(image), 8, 8, out=np.zeros((8, 8), np.uint8))
