"""The part of a training recipe that every task has: the run, its optimiser, its model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from perception.common.licences import commercial_use_fault
from perception.common.precision import respell
from perception.common.strict import Strict

Fraction = Annotated[float, Field(ge=0, le=1)]


class OptimiserConfig(Strict):
    """The learning rate warms up linearly, then falls by ``schedule`` to zero, or stays (``constant``).

    Attributes:
        kind: ``sgd`` is with Nesterov's momentum.
        momentum: of ``sgd`` and ``rmsprop``.
        learning_rate: peak rate of the new layers.
        backbone_factor: the backbone's rate is this much of it.
    """

    kind: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    backbone_factor: float = Field(default=0.3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    warmup_epochs: float = Field(default=1.0, ge=0)
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    clip_norm: float = Field(default=5.0, gt=0)


class ModelConfig(Strict):
    """Entries of the exported model's card that training itself does not know.

    Attributes:
        commercial_use: whether the model may be used commercially, for its card. Where it may, every set and every
            teacher must have a licence that is known to allow it, and so must what training starts from.
        things: names of the boxes of what pixels; null instead of names takes away what a base has.
    """

    version: str = "1"
    description: str = ""
    licence: str = Field(min_length=1)
    commercial_use: bool | None = None
    trained_on: list[str] = Field(default=[])
    things: dict[str, list[str]] | None = None

    @field_validator("things", mode="before")
    @classmethod
    def _drop_those_of_the_base(cls, things: Any) -> Any:
        return (
            {name: boxes for name, boxes in things.items() if boxes is not None} if isinstance(things, dict) else things
        )


class PicturesConfig(Strict):
    """The part of every recipe's ``data``.

    Attributes:
        root: base of all paths in it; relative to the working directory. ``train --data`` replaces it.
        size: ``(width, height)`` of the model's input.
    """

    root: Path
    size: tuple[int, int]


class StartConfig(Strict):
    """The part of every recipe's ``network``.

    Attributes:
        start: checkpoint (or model, see the task's own) that the network starts from, wherever name and shape of a
            tensor agree; ``train --start`` replaces it.
    """

    start: Path | None = None


class RunConfig(Strict):
    """The part of a recipe that does not depend on its task.

    Attributes:
        task: what is trained, see `perception.training.recipes.read.RECIPES`.
        name: of the model.
        output: folder for checkpoints and the log; relative to the working directory.
        precision: ``bf16`` trains under autocast, ``fp32`` without; a CPU that lacks bfloat16 always trains without.
        evaluate_every: epochs between evaluations on ``data.val``; the last epoch is always evaluated.
        patience: stop after this many evaluations without a better one; None never does.
        tensorboard: write event files to ``output/tensorboard``: numbers of every epoch, pictures of every evaluation.
    """

    task: str
    name: str
    output: Path
    data: PicturesConfig
    network: StartConfig = StartConfig()
    seed: int = 0
    epochs: int = Field(ge=1)
    batch: int = Field(default=8, ge=1)
    precision: Annotated[Literal["bf16", "fp32"], BeforeValidator(respell)] = "bf16"
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    evaluate_every: int = Field(default=4, ge=1)
    patience: int | None = Field(default=None, ge=1)
    tensorboard: bool = False
    optimiser: OptimiserConfig = OptimiserConfig()
    model: ModelConfig

    def licences(self) -> dict[str, str]:
        """Return the licence of each thing that is learnt from, by what to call it; empty where nobody says."""
        return {f"task {self.task}": ""}

    @model_validator(mode="after")
    def _licences_allow_it(self) -> RunConfig:
        for what, licence in self.licences().items() if self.model.commercial_use else ():
            fault = commercial_use_fault(licence)
            if fault is not None:
                raise ValueError(f"{what} {fault} (model.commercial_use)")
        return self
