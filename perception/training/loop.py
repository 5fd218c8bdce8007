"""The training loop."""

from __future__ import annotations

import json
import logging
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from perception.errors import PerceptionError, SourceError
from perception.networks.camera import normalise
from perception.training.augment import Augmenter
from perception.training.batches import Batch, BatchMaker
from perception.training.build import build_network
from perception.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from perception.training.config import TrainConfig, read_config
from perception.training.dataset import SegmentationFolder
from perception.training.ema import MovingAverage
from perception.training.evaluate import evaluate_network
from perception.training.losses import SegmentationLoss, class_weights
from perception.training.progress import TrainProgress
from perception.training.schedule import rate_factor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Attributes:
    best: checkpoint with the best mean IoU on the validation pictures.
    last: checkpoint of the last epoch.
    miou: mean IoU of ``best``.
    epochs: epochs done.
    """

    best: Path
    last: Path
    miou: float
    epochs: int


def train(
    config_path: str | Path, resume: bool = True, data_root: str | Path | None = None, stop_after: int | None = None
) -> TrainResult:
    """Train by the recipe in ``config_path``.

    Args:
        config_path: YAML recipe.
        resume: go on from ``<output>/last.pt`` if it is there, with exactly the result of an unbroken run.
        data_root: replaces ``data.root`` of the recipe.
        stop_after: end the call once this many epochs are done in all; the schedule is not shortened.

    Raises:
        PerceptionError: The recipe or the data are faulty, or the loss is no longer a number.
    """
    config = read_config(config_path, data_root)
    return Trainer(config).run(resume, stop_after)


class Trainer:
    """A run in progress: network, average, optimiser and how far they have come."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        data = config.data
        # Check all the data before any work is done on some of it.
        self.train_samples = self._samples("train")
        self.val_samples = self._samples("val")
        counts = self.train_samples.class_pixels()
        absent = [c.name for c, n in zip(data.classes, counts, strict=True) if n == 0]
        if absent:
            raise SourceError(f"no training pixel has the class {', '.join(absent)}", data.root)

        cv2.setNumThreads(1)  # pictures are made in one thread beside torch's own
        random.seed(config.seed)
        np.random.seed(config.seed)  # noqa: NPY002 - whoever draws from the global state is repeatable too
        torch.manual_seed(config.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = build_network(config)
        if config.network.pretrained:
            network.backbone.load_imagenet()
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, config.ema_decay)
        self.optimiser = self._optimiser()
        self.loss = SegmentationLoss(config.loss, class_weights(counts, config.loss.weight_offset), data.ignore)
        self.loss.to(self.device)
        self.batches = BatchMaker(self.train_samples, Augmenter(config.augment, data.ignore), config.batch, config.seed)
        self.epoch = 0
        self.step = 0
        self.best = -1.0
        self.stale = 0

    def run(self, resume: bool = True, stop_after: int | None = None) -> TrainResult:
        """Train to the end of the recipe (or to ``stop_after`` epochs in all)."""
        output = self.config.output
        last, best = output / "last.pt", output / "best.pt"
        if resume and last.is_file():
            self.load(last)
        elif last.is_file():
            log.info("starting over: %s will be replaced", last)
        end = min(self.config.epochs, stop_after or self.config.epochs)
        with TrainProgress(self.config.name, self.config.epochs * len(self.batches), self.step) as progress:
            while self.epoch < end:
                start = time.perf_counter()
                loss = self._train_epoch(progress)
                self.epoch += 1
                row: dict[str, Any] = {"epoch": self.epoch, "loss": round(loss, 5)}
                is_best = False
                if self.epoch % self.config.evaluate_every == 0 or self.epoch == self.config.epochs:
                    is_best = self._evaluate(row)
                row["seconds"] = round(time.perf_counter() - start, 1)
                state = self.state()
                if is_best:
                    save_checkpoint(best, state)
                save_checkpoint(last, state)
                self._log(row)
                if self.config.patience is not None and self.stale >= self.config.patience:
                    log.info("stopping early: no better for %d evaluations", self.stale)
                    break
        return TrainResult(best if best.is_file() else last, last, self.best, self.epoch)

    def state(self) -> dict[str, Any]:
        """Everything ``load`` needs, as tensors and plain values."""
        return {
            "config": json.loads(self.config.model_dump_json()),
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
            "stale": self.stale,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def load(self, path: Path) -> None:
        """Take up the run saved in ``path``."""
        state = load_checkpoint(path)
        load_weights(self.network, state["network"], path)
        load_weights(self.average.network, state["average"], path)
        self.average.steps = state["average_steps"]
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] and self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.best, self.stale = state["best"], state["stale"]
        log.info("going on from epoch %d of %s", self.epoch, path)

    def _samples(self, part: str) -> SegmentationFolder:
        data = self.config.data
        folder = getattr(data, part)
        return SegmentationFolder(data.root / folder.images, data.root / folder.labels, len(data.classes), data.ignore)

    def _optimiser(self) -> torch.optim.Optimizer:
        """AdamW with the backbone slower than the rest, and no decay of norms and biases."""
        config = self.config.optimiser
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            key = (name.startswith("backbone."), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "weight_decay": config.weight_decay if decays else 0.0,
                    "peak": config.learning_rate * (config.backbone_factor if in_backbone else 1.0),
                }
                for (in_backbone, decays), parameters in groups.items()
            ],
            lr=config.learning_rate,
            fused=True,
        )

    def _train_epoch(self, progress: TrainProgress) -> float:
        """One pass over the data; returns the mean loss."""
        self.network.train()
        total = torch.zeros((), dtype=torch.float64)
        for batch in self.batches.epoch(self.epoch):
            value = self._train_step(batch)
            total += value
            progress.advance(self.epoch + 1, value)
        return float(total) / len(self.batches)

    def _train_step(self, batch: Batch) -> float:
        config = self.config
        steps = len(self.batches)
        factor = rate_factor(
            config.optimiser.schedule, self.step, config.epochs * steps, config.optimiser.warmup_epochs * steps
        )
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        images = normalise(batch.images.to(self.device).float())
        labels = batch.labels.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits: Tensor = self.network(images)["class_logits"]
        loss: Tensor = self.loss(logits, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._not_a_number(batch, value)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.optimiser.clip_norm)
        self.optimiser.step()
        self.average.update(self.network)
        self.step += 1
        return value

    def _not_a_number(self, batch: Batch, value: float) -> PerceptionError:
        path = self.config.output / "bad_batch.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(batch.names) + "\n", encoding="utf-8")
        return PerceptionError(
            f"the loss became {value} in epoch {self.epoch + 1}, step {self.step}; "
            f"the batch was {', '.join(batch.names)} (saved in {path}); try a lower learning_rate",
            self.config.output,
        )

    def _evaluate(self, row: dict[str, Any]) -> bool:
        """Measure the averaged network; True if it is the best so far."""
        network = self.average.network
        on_cpu = self.device.type == "cpu"
        if not on_cpu:
            network = MovingAverage(network, 0.0).network.cpu()
        result = evaluate_network(
            network, self.val_samples, self.config.data.size, bf16=on_cpu and self.config.precision == "bf16"
        )
        row["miou"] = round(result.miou, 4)
        row["iou"] = {c.name: round(float(x), 4) for c, x in zip(self.config.data.classes, result.iou, strict=True)}
        if result.miou > self.best:
            self.best, self.stale = result.miou, 0
            return True
        self.stale += 1
        return False

    def _log(self, row: dict[str, Any]) -> None:
        with (self.config.output / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        log.info("%s", " ".join(f"{k}={v}" for k, v in row.items() if k != "iou"))
