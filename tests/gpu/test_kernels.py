"""CUDA kernels against their twins on the CPU, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import cuda

from perception.picture.letterbox import Letterbox, to_input
from perception.postprocess import cuda as kernels
from perception.postprocess import detection, masks
from perception.postprocess.cuda_detection import Decoder
from perception.types import Frame, Planes
from tests.noise import noise


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame", [(40, 30), (20, 45), (16, 12), (9, 7)])
def test_fit_is_the_cpu_resize(frame: tuple[int, int], mode: Any) -> None:
    image = noise(frame[1], frame[0], 3, seed=frame[0])
    expected, box = to_input(Frame(image), 16, 12, mode)
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
    expected, box = to_input(Frame(planes=planes), 16, 12, mode)
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


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame", [(24, 18), (9, 17), (1, 1)])
def test_overlay_is_the_cpu_overlay(frame: tuple[int, int], mode: Any) -> None:
    rng = np.random.default_rng(frame[0])
    box = Letterbox.fit(*frame, 32, 24, mode)
    labels = rng.integers(0, 5, (24, 32), np.uint8)
    palette = rng.integers(0, 256, (5, 3), np.uint8)
    image = noise(frame[1], frame[0], 3, seed=frame[1])
    opacity = float(rng.random())
    expected = np.empty_like(image)
    masks.overlay_bgr(image, masks.to_frame(labels, box), palette, opacity, expected, [3])
    on_gpu = cuda.to_device(image)
    kernels.overlay(on_gpu, cuda.to_device(labels), box, palette, opacity, on_gpu, [3])  # in place
    np.testing.assert_array_equal(on_gpu.copy_to_host(), expected)


def random_boxes(rng: np.random.Generator, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    corner = rng.uniform(-10, 90, (n, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(-2, 40, (n, 2)).astype(np.float32)], 1)
    return boxes, rng.random((n, classes)).astype(np.float32)


def both(boxes: np.ndarray, scores: np.ndarray, box: Letterbox, capacity: int = 256, **options: Any) -> int:
    """Check that both decoders agree; returns the number of detections."""
    expected = detection.decode(boxes, scores, box, **options)
    got = Decoder(capacity).decode(cuda.to_device(boxes), cuda.to_device(scores), box, **options)
    np.testing.assert_array_equal(got.boxes, expected.boxes)
    np.testing.assert_array_equal(got.scores, expected.scores)
    np.testing.assert_array_equal(got.class_ids, expected.class_ids)
    return len(got)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("agnostic", [False, True])
def test_boxes_are_those_of_the_cpu(seed: int, agnostic: bool) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 60, 3)
    boxes[5, 2] = np.nan
    boxes[6, 0] = -np.inf
    scores[7] = np.nan
    scores[10:20] = scores[30:40] = 0.75  # ties
    boxes[12] = boxes[33]
    box = Letterbox.fit(200, 110, 100, 80, "letterbox")
    kept = both(boxes, scores, box, score_threshold=[0.5, 0.6, 0.7], iou_threshold=0.4, class_agnostic=agnostic)
    assert kept > 10


@pytest.mark.parametrize("iou", [0.0, 1 / 3, 0.5, 1.0])
def test_overlaps_exactly_on_the_threshold(iou: float) -> None:
    boxes = np.array([[0, 0, 20, 10], [10, 0, 30, 10], [20, 0, 40, 10], [0, 0, 20, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([[0.9], [0.8], [0.7], [0.6], [0.5]], np.float32)
    assert both(boxes, scores, Letterbox.fit(100, 100, 100, 100), iou_threshold=iou) >= 2


def test_limits_filters_and_nothing_at_all() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 40, 2)
    box = Letterbox.fit(100, 80, 100, 80)
    assert both(boxes, scores, box, max_detections=3) == 3
    assert both(boxes, scores, box, class_filter=[1]) > 3
    assert both(boxes, scores, box, score_threshold=2.0) == 0
    assert both(boxes[:1], np.ones((1, 2), np.float32), box, score_threshold=0.0) <= 2


def test_more_candidates_than_there_is_room_for() -> None:
    boxes, scores = random_boxes(np.random.default_rng(1), 40, 2)
    box = Letterbox.fit(100, 80, 100, 80)
    assert both(boxes, scores, box, capacity=8, score_threshold=0.1) > 8
    assert both(boxes, scores, box, capacity=80, score_threshold=0.0) > 8  # all pairs fit just so


def test_arrays_that_do_not_fit() -> None:
    box = Letterbox.fit(40, 30, 16, 12)
    with pytest.raises(ValueError, match=r"image must be uint8 \[30, 40, 3\]"):
        kernels.fit(cuda.to_device(noise(40, 30, 3)), box, cuda.to_device(noise(12, 16, 3)))
    with pytest.raises(ValueError, match="out must be"):
        kernels.fit(cuda.to_device(noise(30, 40, 3)), box, cuda.to_device(noise(16, 12, 3)))
    luma, chroma = cuda.to_device(noise(30, 40)), cuda.to_device(noise(15, 20))
    with pytest.raises(ValueError, match=r"v must be uint8 \[15, 20\], got uint8 \[30, 40\]"):
        kernels.fit_planes((luma, chroma, luma), "bt601", False, box, cuda.to_device(noise(12, 16, 3)))
    decoder = Decoder(8)
    boxes, scores = (cuda.to_device(a) for a in random_boxes(np.random.default_rng(0), 4, 2))
    with pytest.raises(ValueError, match="expected boxes"):
        decoder.decode(scores, scores, box)
    with pytest.raises(ValueError, match="max_detections"):
        decoder.decode(boxes, scores, box, max_detections=0)
