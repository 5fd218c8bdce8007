"""What the training loop asks of whatever is trained with it: data, network, loss, measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from perception.card import ModelCard
from perception.training.recipes.dense import AnyConfig
from perception.training.run.distributed import Ranks
from perception.training.run.tensorboard import Board
from perception.training.tasks.evaluation import Infer


class AnyBatch(Protocol):
    """Attributes:
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
        """The batches of ``epoch``, as many as its length says."""
        ...


class Task(ABC):
    """A recipe with its data, which are checked when it is made."""

    config: AnyConfig

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, as the recipe wants it to start."""

    @abstractmethod
    def freeze(self, network: nn.Module, epoch: int) -> list[nn.Module]:
        """Set which parameters ask for gradients in ``epoch``.

        Returns:
            The parts that stay as they are, which are run in evaluation mode: their statistics stay, too.
        """

    def rate_factor(self, epoch: int) -> float:
        """A factor on all learning rates in ``epoch``, beside the schedule."""
        return 1.0

    def in_backbone(self, network: nn.Module, name: str) -> bool:
        """Whether the parameter called ``name`` learns at the backbone's own rate."""
        return name.startswith("backbone.")

    @abstractmethod
    def batches(self, ranks: Ranks) -> Batches:
        """What this process trains on."""

    @abstractmethod
    def objective(self) -> nn.Module:
        """What a batch costs: takes the network's outputs and the batch, gives a loss for each head."""

    @abstractmethod
    def run(self, network: nn.Module, images: Tensor, batch: Any) -> Mapping[str, Tensor]:
        """The network's outputs for a batch.

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

    @abstractmethod
    def show(self, board: Board, infer: Infer, epoch: int) -> None:
        """Put a few validation pictures on the board."""

    def draw(self, folder: Path) -> None:
        """Put pictures of what the last evaluation found into ``folder``, if there is anything to show."""
        return

    @abstractmethod
    def card(self, metrics: dict[str, float]) -> ModelCard:
        """The card of the model."""
