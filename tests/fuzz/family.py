"""What a family of hostile inputs is."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from random import Random
from typing import Any

HANG_S = 10.0
"""What takes longer hangs."""

MOST_MEMORY = 1 << 30
"""Bytes beyond those that the process held before."""


class Family(ABC):
    """Inputs of one kind, and the part of the package that eats them.

    An input is bytes that say by themselves what is to be done with them, so that each can be kept as a file and be
    tried again: see `pack`. It depends on ``seed`` and ``index`` alone.

    Args:
        folder: for its files. What an input leaves there is a fault.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def make(self, seed: int, index: int) -> bytes:
        """Make up an input."""

    @abstractmethod
    def eat(self, data: bytes) -> bool:
        """Do with an input what the package does with such.

        Returns:
            whether it was accepted.

        Raises:
            PerceptionError: it was refused as it should be.
            Exception: whatever else is a fault.
        """

    def limit(self, data: bytes) -> float:
        """Seconds that an input may take."""
        return HANG_S

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Give back what it holds."""


def random_for(family: str, seed: int, index: int) -> Random:
    """The generator of one input; of strings, whose seeds are the same in every process."""
    return Random(f"{family} {seed} {index}")


def pack(body: bytes, **head: Any) -> bytes:
    """An input: a line of JSON that says what to do, and bytes."""
    return json.dumps(head, sort_keys=True).encode() + b"\n" + body


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """What `pack` was given."""
    head, _, body = data.partition(b"\n")
    return json.loads(head), body
