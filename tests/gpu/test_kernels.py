"""CUDA kernels against their twins on the CPU, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import cuda

from perception.picture.letterbox import Letterbox
from perception.picture.resize import to_input
from perception.postprocess import cuda as kernels
from perception.postprocess.cells import NO_FLOOR, label
from perception.types import Planes
from tests.noise import noise


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame", [(40, 30), (20, 45), (16, 12), (9, 7)])
def test_fit_is_the_cpu_resize(frame: tuple[int, int], mode: Any) -> None:
    image = noise(frame[1], frame[0], 3, seed=frame[0])
    expected, box = to_input(image, 16, 12, mode)
    out = cuda.to_device(noise(12, 16, 3, seed=1))  # all of it must be overwritten
    kernels.fit(cuda.to_device(image), box, out)
    np.testing.assert_array_equal(out.copy_to_host(), expected)


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame", [(40, 30), (64, 48), (23, 45), (16, 12), (9, 7), (80, 50)])
def test_fit_of_planes_is_the_cpu_resize(frame: tuple[int, int], mode: Any) -> None:
    """1 to 5 samples under a pixel, odd sides, both matrices and ranges."""
    width, height = frame
    half = ((height + 1) // 2, (width + 1) // 2)
    matrix: Any = "bt709" if width % 2 else "bt601"
    y, u, v = noise(height, width, seed=width), noise(*half, seed=width + 1), noise(*half, seed=width + 2)
    planes = Planes(y, u, v, matrix, full_range=mode == "stretch")
    expected, box = to_input(planes, 16, 12, mode)
    out = cuda.to_device(noise(12, 16, 3, seed=1))  # all of it must be overwritten
    on_gpu = [cuda.to_device(plane) for plane in (planes.y, planes.u, planes.v)]
    kernels.fit_planes(on_gpu, planes.matrix, planes.full_range, box, out)
    np.testing.assert_array_equal(out.copy_to_host(), expected)


@pytest.mark.parametrize("level", [0, 127, 255])
def test_fit_keeps_even_pictures(level: int) -> None:
    image = np.full((31, 47, 3), level, np.uint8)
    out = cuda.device_array((12, 16, 3), np.uint8)
    kernels.fit(cuda.to_device(image), Letterbox.fit(47, 31, 16, 12), out)
    assert (out.copy_to_host() == level).all()


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_the_argmax_of_logits_with_ties_and_what_is_strange(seed: int) -> None:
    """Against NumPy: few levels, so that most cells are ties; NaN, infinities and what no float16 holds."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, (2, 5, 7, 9)).astype(np.float32)
    places = rng.random(logits.shape)
    for i, value in enumerate((np.nan, np.inf, -np.inf, 3e38, -3e38, -0.0)):
        logits[(places > 0.05 * i) & (places < 0.05 * (i + 1))] = value
    logits[0, :, 0, 0], logits[1, :, 0, 0], logits[1, :, 6, 8] = np.nan, -np.inf, np.inf
    finite = np.nan_to_num(logits, nan=-1e30, posinf=1e30, neginf=-1e30)
    on_gpu, labels = cuda.to_device(logits), cuda.to_device(np.full((2, 7, 9), 77, np.uint8))
    kernels.label(on_gpu, labels)
    np.testing.assert_array_equal(labels.copy_to_host(), finite.argmax(1))
    np.testing.assert_array_equal(on_gpu.copy_to_host().view(np.uint32), finite.view(np.uint32))
    on_cpu = np.empty((7, 9), np.uint8)
    for frame, expected in zip(finite, labels.copy_to_host(), strict=True):
        assert label(frame, NO_FLOOR, on_cpu)
        np.testing.assert_array_equal(on_cpu, expected)


def test_arrays_that_do_not_fit() -> None:
    box = Letterbox.fit(40, 30, 16, 12)
    with pytest.raises(ValueError, match=r"image must be uint8 \[30, 40, 3\]"):
        kernels.fit(cuda.to_device(noise(40, 30, 3)), box, cuda.to_device(noise(12, 16, 3)))
    with pytest.raises(ValueError, match="out must be"):
        kernels.fit(cuda.to_device(noise(30, 40, 3)), box, cuda.to_device(noise(16, 12, 3)))
    luma, chroma = cuda.to_device(noise(30, 40)), cuda.to_device(noise(15, 20))
    with pytest.raises(ValueError, match=r"v must be uint8 \[15, 20\], got uint8 \[30, 40\]"):
        kernels.fit_planes((luma, chroma, luma), "bt601", False, box, cuda.to_device(noise(12, 16, 3)))
    logits = cuda.to_device(np.zeros((1, 3, 4, 5), np.float32))
    with pytest.raises(ValueError, match=r"labels must be uint8 \[1, 4, 5\], got uint8 \[1, 5, 4\]"):
        kernels.label(logits, cuda.to_device(np.zeros((1, 5, 4), np.uint8)))
    for wrong in (np.zeros((1, 3, 4, 5), np.float16), np.zeros((1, 256, 4, 5), np.float32)):
        with pytest.raises(ValueError, match=r"logits must be float32 \[N, C, h, w\], C in 1\.\.255, got"):
            kernels.label(cuda.to_device(wrong), cuda.to_device(np.zeros((1, 4, 5), np.uint8)))
