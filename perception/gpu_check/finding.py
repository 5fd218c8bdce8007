"""What a block of the check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A block that passed.

    Attributes:
        number: what was measured, for people.
        simulated: it ran on Numba's simulator.
    """

    number: str
    simulated: bool = False


class Absent(Exception):
    """This machine lacks what a block needs."""


class Wrong(Exception):
    """What was found is not what should be."""
