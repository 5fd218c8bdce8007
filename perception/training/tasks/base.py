"""The interface between the training loop and a task: data, network, loss, measure, export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from perception.card import ModelCard
from perception.common.precision import Precision
from perception.training.recipes.base import RunConfig
from perception.training.tasks.evaluation import Infer
from perception.types import U8

Recipe = TypeVar("Recipe", bound=RunConfig)


class AnyBatch(Protocol):
    """A batch as the loop sees it.

    Attributes:
        images: uint8 ``[N, 3, H, W]`` RGB, channels last in memory.
        names: the samples' names.
    """

    @property
    def images(self) -> Tensor: ...
    @property
    def names(self) -> list[str]: ...


class Batches(Protocol):
    """The batches of every epoch; what they hold follows from the recipe's seed and the epoch alone."""

    def __len__(self) -> int: ...
    def epoch(self, epoch: int) -> Iterator[Any]:
        """Make the batches of ``epoch``, as many as its length says."""
        ...


class Task(ABC, Generic[Recipe]):
    """A recipe with its data, which are checked when it is made.

    The class methods need the recipe alone: a checkpoint is exported where its data are not.
    """

    config: Recipe

    @classmethod
    @abstractmethod
    def build_untrained(cls, config: Recipe) -> nn.Module:
        """Build the recipe's network, nothing of it trained yet.

        Raises:
            UsageError: It cannot take pictures of the recipe's size.
        """

    @classmethod
    def deployed(cls, config: Recipe, network: nn.Module) -> nn.Module:
        """Return the network that is exported for a trained one: it has ``outputs`` and a ``first_convolution``."""
        return network

    @classmethod
    @abstractmethod
    def card(cls, config: Recipe, metrics: dict[str, float]) -> ModelCard:
        """Make the card of the model."""

    @classmethod
    @abstractmethod
    def measure(cls, config: Recipe, model: Path, precision: Precision) -> dict[str, float | None]:
        """Measure an exported file on the recipe's validation pictures, run by OpenVINO in ``precision``."""

    def check(self) -> None:
        """Check what the task needs beside its data, before any training.

        Raises:
            PerceptionError: It is missing or does not fit.
        """

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network, as the recipe wants it to start."""

    @abstractmethod
    def freeze(self, network: nn.Module, epoch: int) -> list[nn.Module]:
        """Set which parameters ask for gradients in ``epoch``.

        Returns:
            The parts that stay as they are, which are run in evaluation mode: their statistics stay, too.
        """

    def rate_factor(self, epoch: int) -> float:
        """Return a factor on all learning rates in ``epoch``, beside the schedule."""
        return 1.0

    def in_backbone(self, network: nn.Module, name: str) -> bool:
        """Return whether the parameter called ``name`` learns at the backbone's own rate."""
        return name.startswith("backbone.")

    @abstractmethod
    def batches(self, rank: int, world_size: int) -> Batches:
        """Return the batches of process ``rank`` of ``world_size``."""

    @abstractmethod
    def objective(self) -> nn.Module:
        """Return the loss: takes the network's outputs and the batch, gives a loss for each head."""

    @abstractmethod
    def run(self, network: nn.Module, images: Tensor, batch: Any) -> Mapping[str, Tensor]:
        """Run the network on a batch.

        Args:
            network: of `build`, perhaps shared between processes.
            images: float ``[N, 3, H, W]``, normalised.
            batch: of `batches`.
        """

    @abstractmethod
    def evaluate(self, infer: Infer, row: dict[str, Any]) -> float:
        """Measure on the validation pictures.

        Args:
            infer: the averaged network.
            row: what is measured is put in here, to be logged.

        Returns:
            The score that the best checkpoint has most of.
        """

    def pictures(self, infer: Infer) -> Iterator[tuple[str, U8]]:
        """Draw what the network sees in a few validation pictures: name and uint8 ``[H, W, 3]`` BGR of each."""
        return iter(())

    def draw(self, folder: Path) -> None:
        """Put pictures of what the last evaluation found into ``folder``, if there is anything to show."""
        return
