"""Localisation, of the largest object of a picture or of the object in a window, as a task of the training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.card import DetectionTask, ModelCard
from perception.classics.localisation.network import Localiser
from perception.classics.localisation.recipe import LocalisationConfig, LocalisationLossConfig
from perception.classics.localisation.sliding import SlidingWindowDetector
from perception.classics.localisation.windows import WindowMaker
from perception.common.precision import Precision
from perception.errors import PerceptionError, SourceError
from perception.evaluation.detection import evaluate_detection
from perception.model import load_model
from perception.networks.lite import EfficientNetLite, stages_up_to
from perception.training.data.boxes import BoxLabels
from perception.training.data.coco import CocoFolder
from perception.training.data.labelled import fitted
from perception.training.data.pictures import Labelled, PictureAugmenter, PictureBatch, PictureBatches
from perception.training.tasks.base import Task
from perception.training.tasks.cards import make_card
from perception.training.tasks.evaluation import Infer
from perception.training.tasks.networks import frozen_parts
from perception.training.tasks.preview import draw_prediction
from perception.types import U8

CHUNK = 32  # pictures that are measured at once


class LocalisationTask(Task[LocalisationConfig]):
    """Class and box of one object; the score is the mean of class accuracy and mean IoU, both of what holds an object.

    Attributes:
        train, val: the pictures.

    Raises:
        SourceError: The data are faulty.
    """

    def __init__(self, config: LocalisationConfig) -> None:
        self.config = config
        faults: list[PerceptionError] = []
        sets: list[CocoFolder] = []
        for part in (config.data.train, config.data.val):
            try:
                sets.append(CocoFolder(config.data.root, part, config.data.names))
            except PerceptionError as error:
                faults.append(error)
        if faults:
            raise faults[0] if len(faults) == 1 else SourceError("; ".join(map(str, faults)))
        self.train, self.val = sets
        self.samples = [i for i in range(len(self.train)) if largest(self.train.labels[i]) is not None]
        self.measured = [i for i in range(len(self.val)) if largest(self.val.labels[i]) is not None]
        for name, kept in (("train", self.samples), ("val", self.measured)):
            if not kept:
                raise SourceError(f"no {name} picture has an object of the recipe's classes", config.data.root)

    @classmethod
    def build_untrained(cls, config: LocalisationConfig) -> nn.Module:
        return build_localiser(config)

    @classmethod
    def deployed(cls, config: LocalisationConfig, network: nn.Module) -> nn.Module:
        """See `Task`; a network of windows becomes a detector that slides over the scene."""
        if config.windows is None:
            return network
        assert isinstance(network, Localiser)
        return SlidingWindowDetector(network.eval(), config.data.size, config.windows.scales)

    @classmethod
    def card(cls, config: LocalisationConfig, metrics: dict[str, float]) -> ModelCard:
        windows = config.windows
        detection = DetectionTask(
            classes=config.data.classes,
            # of one box a picture, the class with the best score is the answer
            score_threshold=0.5 / len(config.data.classes) if windows is None else windows.score_threshold,
            iou_threshold=0.0 if windows is None else windows.iou_threshold,
            max_detections=1 if windows is None else 100,
            class_agnostic=windows is not None,  # a window has one object
        )
        return make_card(config, metrics, detection=detection)

    @classmethod
    def measure(cls, config: LocalisationConfig, model: Path, precision: Precision) -> dict[str, float | None]:
        """See `Task`; class accuracy and IoU of each largest object, or average precision of a detector."""
        options: dict[str, Any] = {"engine": "openvino", "precision": precision}
        root, val = config.data.root, config.data.val
        if config.windows is not None:
            synonyms = {theirs: [ours] for theirs, ours in (val.names or {}).items()}
            boxes = evaluate_detection(model, root / val.images, root / val.annotations, synonyms=synonyms, **options)
            measured = boxes.as_dict()
            return {"map": measured["map"], "map50": measured["map50"]}
        right, overlaps = [], []
        with load_model(model, score_threshold=0.0, **options) as loaded:
            for image, label, box, _ in cls(config).held_out():
                found = loaded.predict(image).detections
                assert found is not None
                if not len(found):
                    right.append(False)
                    overlaps.append(0.0)
                    continue
                scale = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
                right.append(int(found.class_ids[0]) == label)
                overlaps.append(iou(found.boxes[0] / scale, box))
        return {"accuracy": float(np.mean(right)), "iou_mean": float(np.mean(overlaps))}

    def build(self) -> nn.Module:
        return build_localiser(self.config, self.config.network.pretrained)

    def freeze(self, network: nn.Module, epoch: int) -> list[nn.Module]:
        assert isinstance(network, Localiser)
        return frozen_parts(network.backbone, self.config.network.frozen_stride)

    def batches(self, rank: int, world_size: int) -> PictureBatches:
        config, windows = self.config, self.config.windows
        crop = config.data.size if windows is None else (windows.side, windows.side)
        augment = PictureAugmenter(config.augment, crop)
        maker = None if windows is None else WindowMaker(windows)

        def make(number: int, rng: np.random.Generator) -> Labelled:
            if maker is None or windows is None:
                plain = self._whole(self.train, self.samples[number])
            else:
                sample = self.train[self.samples[number // windows.per_image]]
                plain = maker(sample, rng, background=number % 2 == 1)
            image, box = augment(plain.image, rng, plain.box)
            return Labelled(image, plain.label, box, plain.name)

        count = len(self.samples) * (1 if windows is None else windows.per_image)
        return PictureBatches(count, make, config.batch, config.seed, rank, world_size)

    def objective(self) -> nn.Module:
        return LocalisationLoss(self.config.loss, len(self.config.data.classes))

    def run(self, network: nn.Module, images: Tensor, batch: PictureBatch) -> Mapping[str, Tensor]:
        outputs: dict[str, Tensor] = network(images)
        return outputs

    def evaluate(self, infer: Infer, row: dict[str, Any]) -> float:
        windows = self.config.windows
        maker = None if windows is None else WindowMaker(windows)
        rng = np.random.default_rng(self.config.seed)
        right: list[bool] = []
        quiet: list[bool] = []
        overlaps: list[float] = []
        for start in range(0, len(self.measured), CHUNK):
            samples = []
            for index in self.measured[start : start + CHUNK]:
                if maker is None:
                    samples.append(self._whole(self.val, index))
                else:
                    picture = self.val[index]
                    samples += [maker(picture, rng, background) for background in (False, True)]
            results = infer(np.stack([s.image for s in samples]))
            scores, boxes = results["scores"][:, 0].float().numpy(), results["box"].float().numpy()
            for sample, score, box in zip(samples, scores, boxes, strict=True):
                if sample.label < 0:
                    assert windows is not None
                    quiet.append(bool(score.max() < windows.score_threshold))
                else:
                    right.append(int(score.argmax()) == sample.label)
                    overlaps.append(iou(box, sample.box))
        row["accuracy"] = round(float(np.mean(right)), 4)
        row["iou_mean"] = round(float(np.mean(overlaps)), 4)
        parts = [row["accuracy"], row["iou_mean"]]
        if quiet:
            row["background"] = round(float(np.mean(quiet)), 4)
            parts.append(row["background"])
        return float(np.mean(parts))

    def pictures(self, infer: Infer) -> Iterator[tuple[str, U8]]:
        if self.config.windows is None:
            card = self.card(self.config, {})
            for index in self.measured[:: max(len(self.measured) // 4, 1)][:4]:
                sample = self.val[index]
                yield f"boxes/{sample.name}", draw_prediction(card, sample.image, infer)

    def held_out(self) -> Iterator[Labelled]:
        """Give the validation pictures at the model's input size, each with its largest object."""
        for index in self.measured:
            yield self._whole(self.val, index)

    def _whole(self, folder: CocoFolder, index: int) -> Labelled:
        """Read a picture of ``folder``, stretched to the model's input, with its largest object."""
        sample = folder[index]
        which = largest(folder.labels[index])
        assert sample.boxes is not None and which is not None
        height, width = sample.image.shape[:2]
        box = sample.boxes.boxes[which] / (width, height, width, height)
        label = int(sample.boxes.class_ids[which])
        return Labelled(fitted(sample.image, self.config.data.size), label, box.astype(np.float32), sample.name)


def build_localiser(config: LocalisationConfig, pretrained: bool = False) -> Localiser:
    """Build backbone and heads for a picture, or for a window."""
    network, windows = config.network, config.windows
    backbone = EfficientNetLite(stages_up_to(network.stride))
    if pretrained:
        backbone.load_imagenet()
    size = config.data.size if windows is None else (windows.side, windows.side)
    background = windows is not None and windows.background != "confidence"
    return Localiser(
        backbone,
        len(config.data.classes),
        size,
        network.stride,
        network.maps,
        network.hidden,
        network.dropout,
        background=background,
        confidence=windows is not None and windows.background != "class",
    )


class LocalisationLoss(nn.Module):
    """Cross entropy of the classes, a loss of the boxes of what is there, and cross entropy of the confidence.

    Args:
        config: the weights.
        classes: number of classes C; the id of nothing, where the network has a class for it.
    """

    def __init__(self, config: LocalisationLossConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes

    def forward(self, outputs: Mapping[str, Tensor], batch: PictureBatch) -> dict[str, Tensor]:
        """Return weighted losses: ``classes``, ``boxes`` and, where there is a confidence, ``confidence``."""
        logits, found = outputs["class_logits"].float(), outputs["box"].float()
        labels, truth = batch.labels.to(logits.device), batch.boxes.to(logits.device)
        there = labels >= 0
        named = labels.where(there, torch.full_like(labels, self.classes))
        # without a class for nothing, windows that hold nothing teach the classes nothing
        known = named < logits.shape[1]
        classes = F.cross_entropy(logits[known], named[known]) if known.any() else logits.sum() * 0.0
        boxes = found.sum() * 0.0
        if there.any():
            boxes = F.mse_loss(found[there], truth[there])
            if self.config.box == "iou":
                from torchvision.ops import generalized_box_iou_loss  # takes seconds: not before something is trained

                boxes = boxes + generalized_box_iou_loss(found[there], truth[there], reduction="mean")
        losses = {"classes": self.config.class_weight * classes, "boxes": self.config.box_weight * boxes}
        if "confidence_logits" in outputs:
            confidence = outputs["confidence_logits"].float().squeeze(1)
            entropy = F.binary_cross_entropy_with_logits(confidence, there.float())
            losses["confidence"] = self.config.confidence_weight * entropy
        return losses


def largest(labels: BoxLabels) -> int | None:
    """Return the index of the largest box, of those that are objects; None where there are none."""
    areas = (labels.boxes[:, 2:] - labels.boxes[:, :2]).prod(1) * (labels.class_ids >= 0)
    return int(areas.argmax()) if len(areas) and areas.max() > 0 else None


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Compute the intersection over union of two boxes xyxy."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common, 1e-9)
