"""Segmentation and, if asked for, detection on one backbone, as a task of the training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.card import DetectionTask, ModelCard, SegmentationTask
from perception.common.precision import Precision
from perception.model import load_model
from perception.networks.fcn import FCN
from perception.networks.segmentation_detection import SegmentationDetectionNetwork
from perception.training.data.augment import Augmenter
from perception.training.data.batches import Batch, BatchMaker
from perception.training.data.coco import CocoFolder
from perception.training.data.masks import Sample, SegmentationFolder
from perception.training.data.training_data import TrainingData
from perception.training.losses.objective import Objective
from perception.training.losses.segmentation import class_weights
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig
from perception.training.tasks.base import Task
from perception.training.tasks.cards import make_card
from perception.training.tasks.evaluation import Infer, evaluate_boxes, evaluate_masks, model_infer
from perception.training.tasks.networks import build_segmentation_detection, frozen_parts
from perception.training.tasks.preview import draw_prediction
from perception.training.tasks.teacher import Teacher
from perception.types import U8

PREVIEWS = 4


class SegmentationDetectionTask(Task[SegmentationDetectionConfig]):
    """Segmentation and detection on one backbone.

    The score is the mean IoU, mAP at IoU 0.5 or, where both are trained, the mean of the two.

    Attributes:
        data: the pictures.
        teacher: answers beside the labels, once it was checked.

    Raises:
        SourceError: The data are faulty.
    """

    def __init__(self, config: SegmentationDetectionConfig) -> None:
        self.config = config
        self.data = TrainingData(config)
        self.teacher: Teacher | None = None

    @classmethod
    def build_untrained(cls, config: SegmentationDetectionConfig) -> nn.Module:
        return build_segmentation_detection(config)

    @classmethod
    def card(cls, config: SegmentationDetectionConfig, metrics: dict[str, float]) -> ModelCard:
        detection = None
        if config.detection is not None:
            detection = DetectionTask(
                boxes="boxes",
                scores="scores",
                classes=config.detection.classes,
                score_threshold=config.detection.score_threshold,
                iou_threshold=config.detection.iou_threshold,
                max_detections=300,
                class_agnostic=config.detection.class_agnostic,
                vote_iou=config.detection.vote_iou,
            )
        segmentation = SegmentationTask(output="class_logits", classes=config.data.classes)
        return make_card(
            config,
            metrics,
            resize=config.data.resize,
            multiple=config.cell,
            segmentation=segmentation,
            detection=detection,
        )

    @classmethod
    def measure(cls, config: SegmentationDetectionConfig, model: Path, precision: Precision) -> dict[str, float | None]:
        """See `Task`; on ``val`` as the recipe reads it, and by class only in float32."""
        data, detection, by_class = config.data, config.detection, precision == "fp32"
        folder = SegmentationFolder(data.val, data.root, data.names, data.ignore)
        options: dict[str, Any] = {"engine": "openvino", "precision": precision}
        with load_model(model, **options) as loaded:
            infer = model_infer(loaded)
            masks = evaluate_masks(infer, folder, data.size, data.resize)
            metrics: dict[str, float | None] = {"miou": masks.miou, "pixel_accuracy": masks.pixel_accuracy}
            if by_class:
                metrics |= {f"iou_{name}": value for name, value in _by_name(data.names, masks.iou).items()}
            if detection is not None:
                coco = CocoFolder(data.root, detection.val, detection.names)
                suppression = (detection.iou_threshold, detection.vote_iou)
                boxes = evaluate_boxes(infer, coco, data.size, data.resize, *suppression)
                metrics |= {"map": boxes.map, "map50": boxes.map50}
                if by_class:
                    metrics |= {f"ap50_{name}": value for name, value in _by_name(detection.names, boxes.ap50).items()}
        return metrics

    def check(self) -> None:
        if self.config.distil is not None:
            self.teacher = Teacher(self.config)

    def build(self) -> nn.Module:
        network = build_segmentation_detection(self.config)
        if self.config.network.pretrained and not self.config.network.prunes_imagenet:
            network.backbone.load_imagenet()
        return network

    def freeze(self, network: nn.Module, epoch: int) -> list[nn.Module]:
        assert isinstance(network, (SegmentationDetectionNetwork, FCN))
        parts = frozen_parts(network.backbone, self.config.network.frozen_stride)
        if self.config.only is not None:
            assert isinstance(network, SegmentationDetectionNetwork)
            if self.config.freeze_shared:
                idle = network.layers_beside(self.config.only)
            else:
                idle = network.parts_of("boxes" if self.config.only == "masks" else "masks")
            for part in idle:
                # the optimiser knows them: a run for both can go on as one for a single task
                part.requires_grad_(epoch >= self.config.epochs)
            parts += idle
        return parts

    def batches(self, rank: int, world_size: int) -> BatchMaker:
        config, detection = self.config, self.config.detection
        box_rules = None if detection is None else detection.augment
        return BatchMaker(
            self.data.masks,
            Augmenter(config.augment, config.data.ignore, config.data.size, box_rules, config.data.resize),
            config.batch,
            config.seed,
            self.data.boxes,
            detection.batch if detection else 0,
            rank,
            world_size,
            masks_alone=config.only == "masks",
            steps=config.steps,
        )

    def objective(self) -> nn.Module:
        weights = class_weights(self.data.masks.class_pixels(), self.config.loss.weight_offset)
        return Objective(self.config, weights)

    def run(self, network: nn.Module, images: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        with_masks = len(batch.labels) if self.config.has_masks else 0
        outputs: dict[str, Tensor] = network(images, with_masks)
        return outputs if self.teacher is None else outputs | self.teacher(images, with_masks)

    def evaluate(self, infer: Infer, row: dict[str, Any]) -> float:
        data, config = self.data, self.config
        scores = []
        if config.has_masks:
            masks = [evaluate_masks(infer, samples, config.data.size, config.data.resize) for samples in data.masks_val]
            scores.append(float(np.mean([m.miou for m in masks])))
            for folder, measured in zip(data.masks_val, masks, strict=True):
                end = "" if folder is data.masks_val[0] else f"_{folder.title}"
                row[f"miou{end}"] = round(measured.miou, 4)
                row[f"iou{end}"] = _by_name(config.data.names, measured.iou)
        if config.detection is not None and config.has_boxes:
            suppression = (config.detection.iou_threshold, config.detection.vote_iou)
            boxes = [
                evaluate_boxes(infer, samples, config.data.size, config.data.resize, *suppression)
                for samples in data.boxes_val
            ]
            scores.append(float(np.mean([b.map50 for b in boxes])))
            for coco, found in zip(data.boxes_val, boxes, strict=True):
                end = "" if coco is data.boxes_val[0] else f"_{coco.title}"
                row[f"map{end}"], row[f"map50{end}"] = round(found.map, 4), round(found.map50, 4)
                row[f"ap50{end}"] = _by_name(config.detection.names, found.ap50)
        return sum(scores) / len(scores)

    def pictures(self, infer: Infer) -> Iterator[tuple[str, U8]]:
        card = self.card(self.config, {})
        for name, sample in self._shown():
            yield name, draw_prediction(card, sample.image, infer)

    def _shown(self) -> list[tuple[str, Sample]]:
        """Choose validation pictures, evenly over the sets, each with a name."""
        sets: dict[str, SegmentationFolder | CocoFolder] = {"masks": self.data.masks_val[0]}
        if self.data.boxes_val:
            sets["boxes"] = self.data.boxes_val[0]
        shown = []
        for kind, samples in sets.items():
            count = min(PREVIEWS, len(samples))
            chosen = (samples[len(samples) * i // count] for i in range(count))
            shown += [(f"{kind}/{sample.name}", sample) for sample in chosen]
        return shown


def _by_name(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    """Map each measured class to its value."""
    return {name: round(float(x), 4) for name, x in zip(names, values, strict=True) if np.isfinite(x)}
