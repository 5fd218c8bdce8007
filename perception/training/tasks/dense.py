"""Masks and, if asked for, boxes, as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.card import ModelCard
from perception.networks.fcn import FCN
from perception.networks.segmenter import StreetNetwork
from perception.training.data.augment import Augmenter
from perception.training.data.batches import Batch, BatchMaker
from perception.training.data.coco import CocoFolder
from perception.training.data.masks import Sample, SegmentationFolder
from perception.training.data.training_data import TrainingData
from perception.training.export.export import make_card
from perception.training.losses.distillation import Teacher
from perception.training.losses.objective import Objective
from perception.training.losses.segmentation import class_weights
from perception.training.recipes.dense import TrainConfig
from perception.training.run.distributed import Ranks
from perception.training.run.tensorboard import Board
from perception.training.tasks.base import Task
from perception.training.tasks.evaluation import Infer, evaluate_boxes, evaluate_masks
from perception.training.tasks.networks import build_street, frozen_parts

BOARD_PICTURES = 4


class StreetTask(Task):
    """See `Task`. Its score is the mean IoU, mAP at IoU 0.5 or, where both are trained, the mean of the two.

    Attributes:
        data: the pictures.
        teacher: answers beside the labels, once the network is built.

    Raises:
        SourceError: The data are faulty.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config: TrainConfig = config
        self.data = TrainingData(config)
        self.teacher: Teacher | None = None

    def build(self) -> nn.Module:
        if self.config.distil is not None:
            self.teacher = Teacher(self.config)
        network = build_street(self.config)
        if self.config.network.pretrained:
            network.backbone.load_imagenet()
        return network

    def freeze(self, network: nn.Module, epoch: int) -> list[nn.Module]:
        assert isinstance(network, (StreetNetwork, FCN))
        parts = frozen_parts(network.backbone, self.config.network.frozen_stride)
        if self.config.only is not None:
            assert isinstance(network, StreetNetwork)
            idle = network.parts_of("boxes" if self.config.only == "masks" else "masks")
            for part in idle:
                # the optimiser knows them: a run for both can go on as one for a single task
                part.requires_grad_(epoch >= self.config.epochs)
            parts += idle
        return parts

    def batches(self, ranks: Ranks) -> BatchMaker:
        config, detection = self.config, self.config.detection
        box_rules = None if detection is None else detection.augment
        return BatchMaker(
            self.data.masks,
            Augmenter(config.augment, config.data.ignore, config.data.size, box_rules, config.data.resize),
            config.batch,
            config.seed,
            self.data.boxes,
            detection.batch if detection else 0,
            ranks.rank,
            ranks.count,
            masks_alone=config.only == "masks",
            steps=config.steps,
        )

    def objective(self) -> nn.Module:
        weights = class_weights(self.data.masks.class_pixels(), self.config.loss.weight_offset)
        return Objective(self.config, weights)

    def run(self, network: nn.Module, images: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        with_masks = len(batch.labels) if self.config.has_masks else 0
        outputs: dict[str, Tensor] = network(images, with_masks)
        taught = {} if self.teacher is None else self.teacher(images, with_masks)
        return outputs | taught

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

    def show(self, board: Board, infer: Infer, epoch: int) -> None:
        for name, sample in self._shown():
            board.picture(name, sample.image, infer, epoch)

    def card(self, metrics: dict[str, float]) -> ModelCard:
        return make_card(self.config, metrics)

    def _shown(self) -> list[tuple[str, Sample]]:
        """Validation pictures for the board, evenly over the sets, each with a name."""
        sets: dict[str, SegmentationFolder | CocoFolder] = {"masks": self.data.masks_val[0]}
        if self.data.boxes_val:
            sets["boxes"] = self.data.boxes_val[0]
        shown = []
        for kind, samples in sets.items():
            count = min(BOARD_PICTURES, len(samples))
            chosen = (samples[len(samples) * i // count] for i in range(count))
            shown += [(f"{kind}/{sample.name}", sample) for sample in chosen]
        return shown


def _by_name(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    """What was measured of each class; a class that was not measured is left out."""
    return {name: round(float(x), 4) for name, x in zip(names, values, strict=True) if np.isfinite(x)}
