"""The training loop."""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from perception.errors import PerceptionError, UsageError
from perception.networks.camera import normalise
from perception.sinks.files import sink_errors
from perception.training.recipes.base import RunConfig
from perception.training.recipes.read import read_config
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig
from perception.training.run.curves import draw_curves
from perception.training.run.distributed import init_distributed
from perception.training.run.ema import MovingAverage
from perception.training.run.progress import OnProgress, TrainProgress
from perception.training.run.resume import check_recipe, measures_the_same
from perception.training.run.run_log import RunLog
from perception.training.run.schedule import rate_factor
from perception.training.run.tensorboard import TensorBoardWriter
from perception.training.tasks.base import AnyBatch, Task
from perception.training.tasks.evaluation import network_infer
from perception.training.tasks.kinds import open_task
from perception.training.tasks.licences import RECIPES, check_networks
from perception.training.tasks.start import start_from, start_from_imagenet
from perception.training.weights.checkpoint import load_checkpoint, load_weights, save_checkpoint

log = logging.getLogger(__name__)

LAST = "last.pt"
COLD_STEPS = 100  # that long an optimiser without history is held back
MEASURED_BATCHES = 16  # give the norms of a model file their statistics


@dataclass(frozen=True)
class TrainResult:
    """The checkpoints of a run.

    Attributes:
        best: checkpoint that did best on the validation pictures.
        last: checkpoint of the last epoch.
        score: of ``best``, as the recipe's task defines it (mean IoU, accuracy).
        epochs: epochs done.
        is_first: False in all but one of several processes that train together.
    """

    best: Path
    last: Path
    score: float
    epochs: int
    is_first: bool = True


def train(
    config_path: str | Path,
    resume: bool = True,
    data_root: str | Path | None = None,
    stop_after: int | None = None,
    start: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> TrainResult:
    """Train by the recipe in ``config_path``.

    Args:
        config_path: YAML recipe.
        resume: go on from ``<output>/last.pt`` if it is there, with exactly the result of an unbroken run.
        data_root: replaces ``data.root`` of the recipe.
        stop_after: end the call once this many epochs are done in all; the schedule is not shortened.
        start: replaces ``network.start`` of the recipe. If that is a recipe itself, it is trained first,
            or to its end; what it has done already stays.
        on_progress: called after every step.

    Raises:
        PerceptionError: The recipe or the data are faulty, or the loss is no longer a number.
    """
    config = read_config(config_path, data_root, start)
    first = config.network.start
    check_networks(config)
    if first is not None and first.suffix in RECIPES and not (resume and (config.output / LAST).is_file()):
        open_task(config).check()  # hours before it is its turn
        log.info("first: %s", first)
        best = train(first, data_root=data_root, on_progress=on_progress).best  # starting over is for this recipe alone
        config = read_config(config_path, data_root, best)
    return Trainer(config).run(resume, stop_after, on_progress)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 saves time there: emulated, as on other CPUs, it takes 10 to 30 times as long."""
    if device.type != "cpu":
        return True
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Trainer:
    """A run in progress: network, average, optimiser and how far they have come.

    Raises:
        PerceptionError: The data are faulty, or nothing would be trained.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        # Check everything before any work is done on some of it.
        self.task: Task[Any] = open_task(config)
        self.task.check()
        cv2.setNumThreads(1)  # pictures are made in one thread beside torch's own
        random.seed(config.seed)
        np.random.seed(config.seed)  # noqa: NPY002 - whoever draws from the global state is repeatable too
        torch.manual_seed(config.seed)
        self.distributed = init_distributed()
        self.device = self.distributed.device
        self.half = config.precision == "bf16" and has_bfloat16(self.device)
        if config.precision == "bf16" and not self.half:
            log.info("this CPU does not compute in bf16: training in fp32")
        network = self.task.build()
        if self.distributed.world_size > 1 and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network: Any = network.to(self.device).to(memory_format=torch.channels_last)
        self.shared: nn.Module = self.network
        self.average = MovingAverage(self.network, config.ema_decay)
        self.task.freeze(self.network, config.epochs)  # the optimiser knows all that is ever trained
        self.optimiser = self._optimiser()
        self.frozen = self.task.freeze(self.network, 0)
        self.loss = self.task.objective().to(self.device)
        self.batches = self.task.batches(self.distributed.rank, self.distributed.world_size)
        self.epoch = 0
        self.step = 0
        self.log = RunLog(config.output / "log.jsonl")
        self.tensorboard: TensorBoardWriter | None = None
        self.on_progress: OnProgress | None = None
        self.cold_step = -COLD_STEPS
        self.best = -1.0
        self.stale = 0

    def run(
        self, resume: bool = True, stop_after: int | None = None, on_progress: OnProgress | None = None
    ) -> TrainResult:
        """Train to the end of the recipe (or to ``stop_after`` epochs in all)."""
        self.on_progress = on_progress
        output = self.config.output
        last, best = output / LAST, output / "best.pt"
        with sink_errors(str(output)):  # before any work
            output.mkdir(parents=True, exist_ok=True)
        if resume and last.is_file():
            self.load(last)
        else:
            if last.is_file():
                log.info("starting over: %s will be replaced", last)
            if self.config.network.start is not None:
                self.start(self.config.network.start)
            elif isinstance(self.config, SegmentationDetectionConfig) and self.config.network.prunes_imagenet:
                start_from_imagenet(self.network, self.config, self._pictures)
                self.average = MovingAverage(self.network, self.config.ema_decay)
        if self.distributed.is_first:
            with sink_errors(str(output)):
                self.log.begin(self.epoch)
                if self.epoch == 0:
                    best.unlink(missing_ok=True)  # an earlier run's
        if self.config.tensorboard and self.distributed.is_first:
            self.tensorboard = TensorBoardWriter(output / "tensorboard")
        self.shared = self.distributed.wrap(self.network)
        end = min(self.config.epochs, stop_after or self.config.epochs)
        while self.epoch < end:
            start = time.perf_counter()
            if not self.distributed.is_first:  # the first process's dropout is what a checkpoint keeps
                torch.manual_seed(hash((self.config.seed, self.epoch, self.distributed.rank)))
            losses = self._train_epoch()
            self.epoch += 1
            if self.distributed.is_first:
                self._finish_epoch(losses, start)
            if self.distributed.broadcast(self.config.patience is not None and self.stale >= self.config.patience):
                log.info("stopping early: no improvement in %d evaluations", self.stale)
                break
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.distributed.is_first and self.log.rows():
            with sink_errors(str(output)):
                draw_curves(self.log, output / "curves.png")
                self.task.draw(output)
        self.distributed.close()
        is_first = self.distributed.is_first
        return TrainResult(best if best.is_file() else last, last, self.best, self.epoch, is_first)

    def start(self, weights: Path) -> list[str]:
        """Begin from a model or a checkpoint; returns what it lacks, see `start_from`."""
        missing = start_from(self.network, weights, self._pictures)
        self.average = MovingAverage(self.network, self.config.ema_decay)
        return missing

    def _pictures(self) -> Iterator[Tensor]:
        """Give a few of the first pictures that will be trained on, as the network takes them."""
        for batch in islice(self.batches.epoch(0), MEASURED_BATCHES):
            yield normalise(batch.images.to(self.device).float())

    def _finish_epoch(self, losses: dict[str, float], start: float) -> None:
        """Measure, save and log."""
        output = self.config.output
        row: dict[str, Any] = {"epoch": self.epoch, **{k: round(v, 5) for k, v in losses.items()}}
        is_best = False
        if self.epoch % self.config.evaluate_every == 0 or self.epoch == self.config.epochs:
            is_best = self._evaluate(row)
        row["seconds"] = round(time.perf_counter() - start, 1)
        state = self.state()
        if is_best:
            save_checkpoint(output / "best.pt", state)
        save_checkpoint(output / LAST, state)
        self._log(row)

    def state(self) -> dict[str, Any]:
        """Return everything ``load`` needs, as tensors and plain values."""
        return {
            "config": json.loads(self.config.model_dump_json()),
            "epoch": self.epoch,
            "step": self.step,
            "cold_step": self.cold_step,
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
        """Take up the run saved in ``path``.

        A compact checkpoint (`perception.training.weights.compact`) has neither the optimiser's state nor that of the
        random numbers: the run goes on from the averaged weights, warming up again, but not bit for bit. Where the
        recipe has changed since, rates and schedule are those of the recipe as it is now.

        Raises:
            ModelError: The checkpoint cannot be read, or is of another network.
            UsageError: It belongs to another recipe, see `perception.training.run.resume`.
        """
        state = load_checkpoint(path)
        check_recipe(state["config"], self.config, path)
        compact = "network" not in state
        load_weights(self.network, state["average" if compact else "network"], path)
        load_weights(self.average.network, state["average"], path)
        self.average.steps = state["average_steps"]
        self.epoch = state["epoch"]
        self.step = self.epoch * len(self.batches)  # as saved, unless batches have another size now
        if measures_the_same(state["config"], self.config):
            self.best, self.stale = state["best"], state["stale"]
        self.cold_step = self.step if compact else min(state.get("cold_step", -COLD_STEPS), self.step)
        if not compact:
            settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimiser.param_groups]
            self.optimiser.load_state_dict(state["optimiser"])
            for group, own in zip(self.optimiser.param_groups, settings, strict=True):
                group.update(own)  # the state comes from the checkpoint, rates and decay from the recipe
            torch.set_rng_state(state["torch_rng"])
            if state["cuda_rng"] and self.device.type == "cuda":
                torch.cuda.set_rng_state_all(state["cuda_rng"])
        log.info("resuming from epoch %d of %s", self.epoch, path)

    def _optimiser(self) -> torch.optim.Optimizer:
        """Make the recipe's optimiser, with the backbone slower than the rest, and no decay of norms and biases."""
        config = self.config.optimiser
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if not parameter.requires_grad:
                continue
            key = (self.task.in_backbone(self.network, name), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
        if not groups:
            raise UsageError("every layer is frozen: nothing is left to train", self.config.output)
        parameters: list[dict[str, Any]] = [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decays else 0.0,
                "peak": config.learning_rate * (config.backbone_factor if in_backbone else 1.0),
            }
            for (in_backbone, decays), parameters in groups.items()
        ]
        rate, momentum = config.learning_rate, config.momentum
        if config.kind == "sgd":
            return torch.optim.SGD(parameters, rate, momentum, nesterov=momentum > 0, fused=True)
        if config.kind == "rmsprop":
            return torch.optim.RMSprop(parameters, rate, momentum=momentum)
        kind = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
        return kind(parameters, rate, fused=True)

    def _train_epoch(self) -> dict[str, float]:
        """Train one epoch; returns the mean loss and, if there are several heads, that of each."""
        self.network.train()
        self.frozen = self.task.freeze(self.network, self.epoch)
        for part in self.frozen:
            part.eval()  # its statistics stay, too
        totals: dict[str, float] = {"loss": 0.0}
        for batch in self.batches.epoch(self.epoch):
            losses = self._train_step(batch)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value
            if self.on_progress is not None:
                total = self.config.epochs * len(self.batches)
                self.on_progress(TrainProgress(self.config.name, self.epoch + 1, losses["loss"], self.step, total))
        return {name: total / len(self.batches) for name, total in totals.items()}

    def _train_step(self, batch: AnyBatch) -> dict[str, float]:
        config = self.config
        steps = len(self.batches)
        factor = rate_factor(
            config.optimiser.schedule, self.step, config.epochs * steps, config.optimiser.warmup_epochs * steps
        )
        factor *= min((self.step - self.cold_step + 1) / COLD_STEPS, 1.0) * self.task.rate_factor(self.epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        images = normalise(batch.images.to(self.device).float())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            outputs = self.task.run(self.shared, images, batch)
        losses: dict[str, Tensor] = self.loss(outputs, batch)
        loss = torch.stack(list(losses.values())).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._not_a_number(batch, value)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.optimiser.clip_norm)
        self.optimiser.step()
        self.average.update(self.network)
        self.step += 1
        if len(losses) == 1:
            return {"loss": value}
        return {"loss": value, **{f"loss_{name}": float(part.detach()) for name, part in losses.items()}}

    def _not_a_number(self, batch: AnyBatch, value: float) -> PerceptionError:
        path = self.config.output / "bad_batch.txt"
        with sink_errors(str(path)):
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
        infer = network_infer(network, bf16=on_cpu and self.half)
        score = self.task.evaluate(infer, row)
        if self.tensorboard is not None:
            for name, picture in self.task.pictures(infer):
                self.tensorboard.picture(name, picture, self.epoch)
        if score > self.best:
            self.best, self.stale = score, 0
            return True
        self.stale += 1
        return False

    def _log(self, row: dict[str, Any]) -> None:
        with sink_errors(str(self.log.path)):
            self.log.add(row)
        if self.tensorboard is not None:
            self.tensorboard.scalars({k: v for k, v in row.items() if k != "epoch"}, row["epoch"])
        log.info("%s", " ".join(f"{k}={v}" for k, v in row.items() if not isinstance(v, dict)))
