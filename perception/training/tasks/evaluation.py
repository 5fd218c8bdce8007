"""Accuracy of a network or of an exported file on labelled pictures at the network's own size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.evaluation.detection import SCORE_THRESHOLD
from perception.evaluation.metrics import ConfusionMatrix
from perception.evaluation.precision import MAX_DETECTIONS
from perception.model import Model
from perception.networks.camera import normalise
from perception.picture.letterbox import ResizeMode
from perception.picture.resize import to_input
from perception.postprocess.detection import decode
from perception.postprocess.segmentation import class_mask
from perception.training.data.coco import CocoFolder
from perception.training.data.masks import SegmentationFolder
from perception.training.tasks.average_precision import AveragePrecision, average_precision

Infer = Callable[[NDArray[np.uint8]], dict[str, Tensor]]
"""uint8 BGR ``[1, height, width, 3]`` to the outputs by name, each float ``[1, ...]``."""


@dataclass(frozen=True)
class MaskEvaluation:
    """Accuracy of masks.

    Attributes:
        miou: mean IoU of the classes present.
        iou: IoU of each class ``[C]``; NaN for a class that never occurs, or that the set does not label.
        pixel_accuracy: share of counted pixels with the right class.
        ms_per_image: median time of the forward pass alone.
    """

    miou: float
    iou: NDArray[np.float64]
    pixel_accuracy: float
    ms_per_image: float


def evaluate_masks(
    infer: Infer, samples: SegmentationFolder, size: tuple[int, int], resize: ResizeMode = "stretch"
) -> MaskEvaluation:
    """Measure any source of ``class_logits``.

    Logits are upsampled bilinearly (half-pixel centres) to the size of the labels, so the labels are never resampled.

    Args:
        infer: the network.
        samples: labelled pictures.
        size: ``(width, height)`` of the network's input.
        resize: how pictures are fitted into it.
    """
    matrix = ConfusionMatrix(samples.classes)
    times = []
    for sample in samples.samples:
        assert sample.labels is not None
        image, letterbox = to_input(sample.image, *size, resize)
        start = time.perf_counter()
        logits = infer(image[None])["class_logits"]
        times.append(time.perf_counter() - start)
        matrix.add(class_mask(logits[0].float().contiguous().numpy(), letterbox), sample.labels)
    iou = np.where(samples.labelled, matrix.iou(), np.nan)  # the others may be there, and nobody labelled them
    mean = float(np.nanmean(iou)) if np.isfinite(iou).any() else 0.0
    return MaskEvaluation(mean, iou, matrix.pixel_accuracy(), float(np.median(times)) * 1e3)


def evaluate_boxes(
    infer: Infer,
    samples: CocoFolder,
    size: tuple[int, int],
    resize: ResizeMode,
    iou_threshold: float,
    vote_iou: float | None = None,
) -> AveragePrecision:
    """Measure any source of ``boxes`` and ``scores``.

    Boxes are compared in pixels of the picture, after class-wise suppression.

    Args:
        infer: the network.
        samples: pictures with boxes.
        size: ``(width, height)`` of the network's input.
        resize: how pictures are fitted into it.
        iou_threshold: boxes of a class that overlap a better one by more are dropped.
        vote_iou: those that overlap by at least so much are averaged.
    """
    found = []
    for sample in (samples[i] for i in range(len(samples))):
        image, letterbox = to_input(sample.image, *size, resize)
        results = infer(image[None])
        found.append(
            decode(
                results["boxes"][0].float().numpy(),
                results["scores"][0].float().numpy(),
                letterbox,
                score_threshold=SCORE_THRESHOLD,
                iou_threshold=iou_threshold,
                max_detections=MAX_DETECTIONS,
                vote_iou=vote_iou,
            )
        )
    return average_precision(found, samples.labels, len(samples.classes))


def network_infer(network: nn.Module, bf16: bool = False) -> Infer:
    """Wrap a torch network, which must be in evaluation mode."""

    def infer(frames: NDArray[np.uint8]) -> dict[str, Tensor]:
        images = torch.from_numpy(frames).flip(3).permute(0, 3, 1, 2)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            results: dict[str, Tensor] = network(normalise(images.float()))
        return results

    return infer


def model_infer(model: Model) -> Infer:
    """Wrap the engine of a loaded model file."""
    return lambda frames: {name: torch.from_numpy(value) for name, value in model.engine.infer(frames).items()}
