"""The result of an evaluation, whatever the task: numbers, tables, pictures."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard, read_card
from perception.errors import ModelError
from perception.model import Model, load_model
from perception.types import U8
from perception.weights.library import find_with_card

Kept = TypeVar("Kept")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Example:
    """A picture of the report.

    Attributes:
        caption: which picture, and how bad.
        panels: what is beside each other: title and uint8 ``[H, W, 3]`` BGR.
    """

    caption: str
    panels: list[tuple[str, U8]]


@dataclass(frozen=True)
class Confusion:
    """Counts ``[R, K]``: how often what is ``rows[r]`` in truth was taken for ``columns[k]``, and what was counted."""

    rows: list[str]
    columns: list[str]
    counts: NDArray[np.int64]
    counted: str


@dataclass(frozen=True)
class Curve:
    """Precision at 101 recalls from 0 to 1, both in 0..1."""

    name: str
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evaluation(ABC):
    """Accuracy of a model on a data set.

    Attributes:
        card: of the model.
        engine: one line about what ran it.
        data: the data set.
        images: how many pictures.
        ms_per_image: median of resize, network and post-processing of one picture, in milliseconds, while as many
            pictures are in flight as the engine has streams.
        seconds: that all took, reading included.
        examples: the worst pictures, as far as they were asked for.
    """

    card: ModelCard
    engine: str
    data: str
    images: int
    ms_per_image: float
    seconds: float
    examples: list[Example] = field(default_factory=list)

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain data for JSON; None stands for what is not defined."""

    @abstractmethod
    def tables(self) -> list[tuple[str, Rows]]:
        """Return the result for people: titles and rows."""

    @property
    @abstractmethod
    def confusion_table(self) -> Confusion:
        """The confusion matrix."""

    @property
    def curves(self) -> list[Curve]:
        """Precision against recall, class by class, where that means something."""
        return []

    @property
    def legend(self) -> dict[str, tuple[int, int, int]]:
        """RGB colours that need a name beside the examples."""
        return {}

    def facts(self) -> dict[str, str]:
        """List model, data, engine and speed."""
        return {
            "model": f"{self.card.name} {self.card.version}",
            "data": self.data,
            "images": str(self.images),
            "engine": self.engine,
            "speed": f"{self.ms_per_image:.2f} ms an image (median), {self.images / max(self.seconds, 1e-9):.1f} "
            f"images a second with reading and counting",
        }


class Worst(Generic[Kept]):
    """Keeps the few items with the highest badness, the first of those that are equally bad."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, Kept]] = []
        self._seen = 0

    def add(self, badness: float, make: Callable[[], Kept]) -> None:
        """Consider an item; ``make`` is called if it is kept, for now."""
        self._seen += 1
        if self._limit and (len(self._heap) < self._limit or badness > self._heap[0][0]):
            heapq.heappush(self._heap, (badness, -self._seen, make()))
            if len(self._heap) > self._limit:
                heapq.heappop(self._heap)

    def items(self) -> list[Kept]:
        """List the items, the worst first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def find_for(task: str, model: str | Path, card: str | Path | None = None) -> tuple[Path, str | Path | None, ModelCard]:
    """Find a model that does ``task``, before it is loaded.

    Args:
        task: ``segmentation``, ``detection`` or ``classification``.
        model: name or file.
        card: YAML card of a foreign model.

    Returns:
        The file to load, the card to load it with if it is not in the file, and what the card says.

    Raises:
        ModelError: there is no such model, its card is not valid, or it does something else.
    """
    loaded, card = find_with_card(model, card)
    read = read_card(loaded, card)
    if task not in read.tasks:
        raise ModelError(f"this model does not do {task}, only {', '.join(read.tasks)}", model)
    return loaded, card, read


def load_for(task: str, model: str | Path, card: str | Path | None = None, **options: Any) -> Model:
    """Load a model that does ``task``, to run on several pictures at once.

    Raises:
        ModelError: it does something else.
        PerceptionError: see `load_model`.
    """
    path, card, _ = find_for(task, model, card)
    return load_model(path, card=card, mode="throughput", **options)


def number_or_none(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return float(value) if np.isfinite(value) else None
