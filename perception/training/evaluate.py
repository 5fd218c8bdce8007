"""Accuracy of a network or of an exported file on labelled pictures at the network's own size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.evaluation.metrics import ConfusionMatrix
from perception.networks.camera import normalise
from perception.training.dataset import SegmentationFolder


@dataclass(frozen=True)
class Evaluation:
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


def evaluate_logits(
    infer: Callable[[NDArray[np.uint8]], Tensor], samples: SegmentationFolder, size: tuple[int, int]
) -> Evaluation:
    """Measure any source of logits.

    Pictures are stretched to ``size``; logits are upsampled bilinearly (half-pixel centres) to the size of the
    labels, so the labels are never resampled.

    Args:
        infer: uint8 BGR ``[1, height, width, 3]`` to float logits ``[1, C, h, w]``.
        samples: labelled pictures.
        size: ``(width, height)`` of the network's input.
    """
    matrix = ConfusionMatrix(samples.classes)
    times = []
    for sample in samples.samples:
        image = sample.image
        if image.shape[1::-1] != size:
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
        start = time.perf_counter()
        logits = infer(image[None])
        times.append(time.perf_counter() - start)
        height, width = sample.labels.shape
        logits = F.interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)
        matrix.add(logits.argmax(1)[0].numpy(), sample.labels)
    return Evaluation(matrix.mean_iou(), matrix.iou(), matrix.pixel_accuracy(), float(np.median(times)) * 1e3)


def evaluate_network(
    network: nn.Module, samples: SegmentationFolder, size: tuple[int, int], bf16: bool = False
) -> Evaluation:
    """Measure a torch network, which must be in evaluation mode."""

    def infer(frames: NDArray[np.uint8]) -> Tensor:
        images = torch.from_numpy(frames).flip(3).permute(0, 3, 1, 2)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits: Tensor = network(normalise(images.float()))["class_logits"]
        return logits

    return evaluate_logits(infer, samples, size)


def evaluate_onnx(
    path: Path, samples: SegmentationFolder, size: tuple[int, int], precision: str = "f32", threads: int = 0
) -> Evaluation:
    """Measure an exported file with OpenVINO.

    Args:
        path: the ``.onnx`` file.
        samples: labelled pictures.
        size: ``(width, height)`` of the network's input.
        precision: ``f32`` or ``bf16``.
        threads: CPU threads; 0 lets OpenVINO choose.
    """
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape([1, size[1], size[0], 3])
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", config)
    request = compiled.create_infer_request()

    def infer(frames: NDArray[np.uint8]) -> Tensor:
        request.infer([np.ascontiguousarray(frames)])
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return evaluate_logits(infer, samples, size)
