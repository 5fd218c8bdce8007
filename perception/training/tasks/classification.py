"""Classes of whole pictures, as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.card import ClassificationTask as CardTask
from perception.card import ModelCard
from perception.common.precision import Precision
from perception.errors import UsageError
from perception.evaluation.classification import evaluate_classification
from perception.networks.classifier import Classifier, blocks_of, head_of
from perception.training.data.labelled import open_sets
from perception.training.data.pictures import Labelled, PictureAugmenter, PictureBatch, PictureBatches
from perception.training.recipes.classification import ClassificationConfig
from perception.training.tasks.base import Task
from perception.training.tasks.cards import make_card
from perception.training.tasks.confusion_plot import draw_confusion
from perception.training.tasks.evaluation import Infer
from perception.training.tasks.networks import build_for_classes

CHUNK = 250  # pictures that are measured at once


class ClassificationTask(Task[ClassificationConfig]):
    """Classification of whole pictures; the score is the accuracy.

    Attributes:
        train, val: the pictures.
        confusion: of the last evaluation, int64 ``[C, C]``: pictures by true and by likeliest class.

    Raises:
        SourceError: The data are faulty.
        UsageError: The data's classes are not the recipe's, or nothing would be trained.
    """

    def __init__(self, config: ClassificationConfig) -> None:
        self.config = config
        network = build_for_classes(config)
        blocks, frozen = blocks_of(network.network), config.network.frozen
        if isinstance(frozen, int) and frozen >= len(blocks):
            what = "nothing is left to train" if frozen == len(blocks) else f"it has {len(blocks)}"
            raise UsageError(f"network.frozen: {frozen} blocks of {config.network.classifier} are frozen: {what}")
        self.size = network.size or config.data.size[::-1]
        self.train, self.val = open_sets(config.data)
        self.confusion: NDArray[np.int64] | None = None

    @classmethod
    def build_untrained(cls, config: ClassificationConfig) -> nn.Module:
        return build_for_classes(config)

    @classmethod
    def card(cls, config: ClassificationConfig, metrics: dict[str, float]) -> ModelCard:
        named = {"output": "probabilities", "classes": config.data.classes}
        return make_card(config, metrics, classification=CardTask.model_validate(named))

    @classmethod
    def measure(cls, config: ClassificationConfig, model: Path, precision: Precision) -> dict[str, float | None]:
        """See `Task`; on the pictures that were held out."""
        _, val = open_sets(config.data)
        with TemporaryDirectory(dir=model.parent, prefix=f".{model.name}.") as folder:
            pictures = Path(folder) / "val.npz"
            np.savez(pictures, images=val.images[..., ::-1], labels=val.labels)
            result = evaluate_classification(model, pictures, engine="openvino", precision=precision)
        return {"accuracy": result.accuracy, "error_percent": 100 * (1 - result.accuracy)}

    def build(self) -> nn.Module:
        return build_for_classes(self.config, self.config.network.pretrained)

    def freeze(self, network: nn.Module, epoch: int) -> list[nn.Module]:
        assert isinstance(network, Classifier)
        config, blocks = self.config.network, blocks_of(network.network)
        count = config.frozen if isinstance(config.frozen, int) and epoch >= config.head_epochs else len(blocks) - 1
        network.network.requires_grad_(True)
        for block in blocks[:count]:
            block.requires_grad_(False)
        if count == len(blocks) - 1:  # a block may hold more than the head, but that alone is new
            blocks[-1].requires_grad_(False)
            head_of(network.network)[1].requires_grad_(True)
        return blocks[:count]

    def in_backbone(self, network: nn.Module, name: str) -> bool:
        assert isinstance(network, Classifier)
        return not name.startswith(f"network.{head_of(network.network)[0]}.")

    def rate_factor(self, epoch: int) -> float:
        config = self.config.network
        return config.later_factor if config.head_epochs and epoch >= config.head_epochs else 1.0

    def batches(self, rank: int, world_size: int) -> PictureBatches:
        if world_size > 1 and self.config.network.head_epochs:
            raise UsageError("network.head_epochs changes what is trained during the run: use one process")
        augment = PictureAugmenter(self.config.augment, self.size[::-1])

        def make(index: int, rng: np.random.Generator) -> Labelled:
            image, box = augment(self.train.images[index], rng)
            return Labelled(image, int(self.train.labels[index]), box, self.train.names[index])

        config = self.config
        return PictureBatches(len(self.train), make, config.batch, config.seed, rank, world_size)

    def objective(self) -> nn.Module:
        return ClassificationLoss(self.config.smoothing)

    def run(self, network: nn.Module, images: Tensor, batch: PictureBatch) -> Mapping[str, Tensor]:
        outputs: dict[str, Tensor] = network(images)
        return outputs

    def evaluate(self, infer: Infer, row: dict[str, Any]) -> float:
        count = len(self.config.data.classes)
        confusion = np.zeros((count, count), np.int64)
        loss = 0.0
        for start in range(0, len(self.val), CHUNK):
            labels = self.val.labels[start : start + CHUNK]
            logits = infer(self.val.images[start : start + CHUNK])["logits"].float()
            np.add.at(confusion, (labels, logits.argmax(1).numpy()), 1)
            loss += float(F.cross_entropy(logits, torch.from_numpy(labels), reduction="sum"))
        accuracy = float(np.trace(confusion) / len(self.val))
        row["val_loss"] = round(loss / len(self.val), 5)
        row["accuracy"] = round(accuracy, 5)
        row["error_percent"] = round(100 * (1 - accuracy), 3)
        self.confusion = confusion
        return accuracy

    def draw(self, folder: Path) -> None:
        if self.confusion is not None:
            draw_confusion(self.confusion, self.config.data.classes, folder / "confusion.png")


class ClassificationLoss(nn.Module):
    """Cross entropy of ``logits`` with the labels.

    Args:
        smoothing: share of every label that goes to all classes alike.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, outputs: Mapping[str, Tensor], batch: PictureBatch) -> dict[str, Tensor]:
        """Return ``{"classes": loss}``."""
        logits = outputs["logits"].float()
        labels = batch.labels.to(logits.device)
        return {"classes": F.cross_entropy(logits, labels, label_smoothing=self.smoothing)}
