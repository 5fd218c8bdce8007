"""Accuracy of a network or of an exported file on labelled pictures at the network's own size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.evaluation.detection import SCORE_THRESHOLD
from perception.evaluation.metrics import ConfusionMatrix
from perception.evaluation.precision import MAX_DETECTIONS
from perception.networks.camera import normalise
from perception.postprocess.detection import decode
from perception.preprocess import Letterbox
from perception.training.average_precision import AveragePrecision, average_precision
from perception.training.coco import CocoFolder
from perception.training.dataset import SegmentationFolder

Infer = Callable[[NDArray[np.uint8]], dict[str, Tensor]]
"""uint8 BGR ``[1, height, width, 3]`` to the outputs by name, each float ``[1, ...]``."""


@dataclass(frozen=True)
class MaskEvaluation:
    """Attributes:
    miou: mean IoU of the classes present.
    iou: IoU of each class ``[C]``; NaN for a class that never occurs.
    pixel_accuracy: share of counted pixels with the right class.
    ms_per_image: median time of the forward pass alone.
    """

    miou: float
    iou: NDArray[np.float64]
    pixel_accuracy: float
    ms_per_image: float


def evaluate_masks(infer: Infer, samples: SegmentationFolder, size: tuple[int, int]) -> MaskEvaluation:
    """Measure any source of ``class_logits``.

    Pictures are stretched to ``size``; logits are upsampled bilinearly (half-pixel centres) to the size of the
    labels, so the labels are never resampled.

    Args:
        infer: the network.
        samples: labelled pictures.
        size: ``(width, height)`` of the network's input.
    """
    matrix = ConfusionMatrix(samples.classes)
    times = []
    for sample in samples.samples:
        assert sample.labels is not None
        image = stretched(sample.image, size)
        start = time.perf_counter()
        logits = infer(image[None])["class_logits"]
        times.append(time.perf_counter() - start)
        height, width = sample.labels.shape
        logits = F.interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)
        matrix.add(logits.argmax(1)[0].numpy(), sample.labels)
    return MaskEvaluation(matrix.mean_iou(), matrix.iou(), matrix.pixel_accuracy(), float(np.median(times)) * 1e3)


def evaluate_boxes(infer: Infer, samples: CocoFolder, size: tuple[int, int], iou_threshold: float) -> AveragePrecision:
    """Measure any source of ``boxes`` and ``scores``.

    Pictures are stretched to ``size``, boxes are compared in pixels of the picture, after class-wise suppression.

    Args:
        infer: the network.
        samples: pictures with boxes.
        size: ``(width, height)`` of the network's input.
        iou_threshold: boxes of a class that overlap a better one by more are dropped.
    """
    found = []
    for sample in (samples[i] for i in range(len(samples))):
        height, width = sample.image.shape[:2]
        results = infer(stretched(sample.image, size)[None])
        found.append(
            decode(
                results["boxes"][0].float().numpy(),
                results["scores"][0].float().numpy(),
                Letterbox.fit(width, height, *size),
                score_threshold=SCORE_THRESHOLD,
                iou_threshold=iou_threshold,
                max_detections=MAX_DETECTIONS,
            )
        )
    return average_precision(found, samples.labels, len(samples.classes))


def network_infer(network: nn.Module, bf16: bool = False) -> Infer:
    """A torch network, which must be in evaluation mode."""

    def infer(frames: NDArray[np.uint8]) -> dict[str, Tensor]:
        images = torch.from_numpy(frames).flip(3).permute(0, 3, 1, 2)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            results: dict[str, Tensor] = network(normalise(images.float()))
        return results

    return infer


def stretched(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """``image`` stretched to ``(width, height)``."""
    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
