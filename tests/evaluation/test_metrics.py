"""The confusion matrix against counting pixel by pixel. (IoU and accuracy: tests/training/test_metrics.py.)"""

from __future__ import annotations

import numpy as np
import pytest

from perception.evaluation.metrics import ConfusionMatrix


def slow_counts(predicted: np.ndarray, truth: np.ndarray, classes: int, ignore: tuple[int, ...]) -> np.ndarray:
    counts = np.zeros((classes, classes), int)
    for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if 0 <= t < classes and t not in ignore:
            counts[t, p] += 1
    return counts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int8])
def test_counts_equal_a_slow_loop(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 20))
    ignore = (int(rng.integers(0, classes)),) if seed % 2 else ()
    matrix = ConfusionMatrix(classes, ignore)
    expected = np.zeros((classes, classes), int)
    for _ in range(3):
        # blocks, so that there are runs; ids beyond the classes and below zero, that count for nothing
        shape, block = tuple(rng.integers(1, 12, 2)), tuple(rng.integers(1, 6, 2))
        predicted = np.kron(rng.integers(0, classes, shape), np.ones(block, int)).astype(dtype)
        truth = np.kron(rng.integers(0, 100, shape) % (classes + 4), np.ones(block, int))
        truth = np.where(truth == classes + 3, -1 if dtype != np.uint8 else 255, truth).astype(dtype)
        matrix.add(predicted, truth)
        expected += slow_counts(predicted, truth, classes, ignore)
    np.testing.assert_array_equal(matrix.counts, expected)


def test_views_and_single_pixels() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 3, (2, 20, 30)).astype(np.uint8)
    matrix = ConfusionMatrix(3)
    matrix.add(predicted[::2, 5:17:3], truth[::2, 5:17:3])
    np.testing.assert_array_equal(matrix.counts, slow_counts(predicted[::2, 5:17:3], truth[::2, 5:17:3], 3, ()))
    matrix.add(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))
    matrix.add(np.array([[2]], np.uint8), np.array([[1]], np.uint8))
    assert matrix.counts.sum() == 10 * 4 + 1


def test_ids_do_not_wrap_around() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 1, 2]), np.array([256, 257, -254]))  # 0, 1 and 2 as bytes
    assert matrix.counts.sum() == 0


def test_255_classes_leave_255_for_void() -> None:
    matrix = ConfusionMatrix(255)
    matrix.add(np.array([254, 7], np.uint8), np.array([254, 255], np.uint8))
    assert matrix.counts.sum() == matrix.counts[254, 254] == 1
    with pytest.raises(ValueError, match="255"):
        ConfusionMatrix(256)


def test_a_predicted_id_that_is_no_class_is_refused_and_nothing_counted() -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match="2 predicted ids are not below 3"):
        matrix.add(np.array([0, 3, 200, 9]), np.array([0, 1, 2, 255]))
    assert matrix.counts.sum() == 0


def test_an_ignored_class_is_in_no_mean() -> None:
    truth = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    predicted = np.array([0, 0, 1, 2, 2, 2, 0, 0])
    matrix = ConfusionMatrix(3, ignore=[0])
    matrix.add(predicted, truth)
    assert np.isnan(matrix.iou()[0])
    np.testing.assert_allclose(matrix.iou()[1:], [1 / 2, 2 / 5])
    assert matrix.mean_iou() == pytest.approx(0.45)
    assert matrix.pixel_accuracy() == pytest.approx(3 / 6)
