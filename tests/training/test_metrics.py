"""Metrics, losses, schedule and moving average against slow oracles."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from perception.evaluation.metrics import ConfusionMatrix  # noqa: E402
from perception.training.losses.segmentation import (  # noqa: E402
    SegmentationLoss,
    class_weights,
    hard_mean,
    lovasz_softmax,
)
from perception.training.recipes.segmentation_detection import LossConfig  # noqa: E402
from perception.training.run.ema import MovingAverage  # noqa: E402
from perception.training.run.schedule import rate_factor  # noqa: E402


def slow_iou(predicted: np.ndarray, truth: np.ndarray, classes: int, ignore: int) -> list[float]:
    result = []
    for c in range(classes):
        intersection = union = 0
        for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t == ignore:
                continue
            intersection += p == c and t == c
            union += p == c or t == c
        result.append(intersection / union if union else math.nan)
    return result


def test_iou_equals_counting_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    matrix = ConfusionMatrix(5)
    predicted = rng.integers(0, 4, (3, 20, 17)).astype(np.uint8)  # class 4 never occurs
    truth = rng.integers(0, 4, (3, 20, 17)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 11
    for p, t in zip(predicted, truth, strict=True):
        matrix.add(p, t)
    expected = slow_iou(predicted, truth, 5, 11)
    np.testing.assert_allclose(matrix.iou(), expected)
    assert matrix.mean_iou() == pytest.approx(np.mean(expected[:4]))
    counted = truth != 11
    assert matrix.pixel_accuracy() == pytest.approx((predicted == truth)[counted].mean())


def test_an_empty_matrix_has_no_nan() -> None:
    assert ConfusionMatrix(3).mean_iou() == 0
    assert ConfusionMatrix(3).pixel_accuracy() == 0


def test_the_matrix_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        ConfusionMatrix(2).add(np.zeros((2, 3), int), np.zeros((3, 2), int))


def test_class_weights_favour_rare_classes_and_average_to_one() -> None:
    pixels = np.array([900, 90, 10])
    weights = class_weights(pixels, 1.1).numpy()
    assert weights[0] < weights[1] < weights[2]
    assert float((weights * pixels).sum() / pixels.sum()) == pytest.approx(1, rel=1e-5)
    assert class_weights(pixels, None).tolist() == [1, 1, 1]


def test_hard_mean_keeps_the_largest() -> None:
    losses = torch.tensor([1.0, 5.0, 3.0, 2.0])
    assert hard_mean(losses, 0.5).item() == 4
    assert hard_mean(losses, 0.01).item() == 5
    assert hard_mean(losses, 1.0).item() == pytest.approx(2.75)
    assert hard_mean(losses[:0], 0.5).item() == 0


def test_lovasz_is_the_jaccard_loss_at_sure_predictions() -> None:
    # With probabilities of 0 and 1 the surrogate equals 1 - mean IoU of the classes present.
    rng = np.random.default_rng(1)
    predicted, truth = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    logits = torch.full((200, 3), -60.0)
    logits[torch.arange(200), torch.from_numpy(predicted)] = 60.0
    matrix = ConfusionMatrix(3)
    matrix.add(predicted, truth)
    loss = lovasz_softmax(logits, torch.from_numpy(truth))
    assert loss.item() == pytest.approx(1 - matrix.mean_iou(), abs=1e-5)
    assert lovasz_softmax(logits[:0], torch.from_numpy(truth[:0])).item() == 0


def test_cross_entropy_skips_ignored_pixels() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([0.5, 2.0, 1.0])
    loss = SegmentationLoss(LossConfig(), weights, ignore=255)
    logits = torch.randn(2, 3, 4, 6)
    labels = torch.randint(0, 3, (2, 16, 24))
    labels[:, :5] = 255
    up = F.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)
    total, count = 0.0, 0
    for n, y, x in (labels != 255).nonzero().tolist():
        c = int(labels[n, y, x])
        total += float(-up[n, :, y, x].log_softmax(0)[c] * weights[c])
        count += 1
    assert loss(logits, labels).item() == pytest.approx(total / count, rel=1e-4)
    assert loss(logits, torch.full_like(labels, 255)).item() == 0


def test_every_loss_term_has_a_finite_gradient() -> None:
    loss = SegmentationLoss(LossConfig(ohem=0.3, lovasz=1.0), torch.ones(3), ignore=255)
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss(logits, torch.randint(0, 3, (1, 16, 16))).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


def test_the_rate_rises_then_falls_to_zero() -> None:
    for schedule in ("cosine", "poly"):
        rates = [rate_factor(schedule, step, 100, 10) for step in range(101)]
        assert rates[0] == pytest.approx(1 / 11)
        assert max(rates) == rates[10] == 1
        assert all(a < b for a, b in pairwise(rates[:11]))
        assert all(a > b for a, b in pairwise(rates[10:]))
        assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_moving_average_equals_the_formula() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average = MovingAverage(network, 0.8)
    expected = network[0].weight.detach().double().numpy().copy()
    for step in range(60):
        with torch.no_grad():
            network[0].weight.normal_()
            network[1].num_batches_tracked.add_(1)
        average.update(network)
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network[0].weight.detach().double().numpy()
    np.testing.assert_allclose(average.network[0].weight.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert average.network[1].num_batches_tracked.item() == 60
    assert not average.network.training
