"""What a row of the fault matrix is given, and what it tells."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


class NotHere(Exception):
    """A fault cannot be made on this machine; the text says what was refused."""


@dataclass
class Work:
    """What a row is given.

    Attributes:
        folder: for its files, empty at first.
        count: how often the fault is made; seconds for the rows whose fault is time.
        seed: of what is left to chance.
        random: numbers of that seed.
    """

    folder: Path
    count: int
    seed: int = 0
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)


@dataclass
class Outcome:
    """What a row tells.

    Attributes:
        times: how often the fault was made.
        figures: what was measured, by name, as the table says it.
        wrong: what was not as it should be, a line each.
    """

    times: int = 0
    figures: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def check(self, condition: object, text: str) -> bool:
        """Note what is wrong unless ``condition`` holds."""
        if not condition:
            self.wrong.append(text)
        return bool(condition)

    @contextmanager
    def trial(self, name: str) -> Iterator[None]:
        """One time of the fault; what is raised in it is a line of what is wrong."""
        self.times += 1
        try:
            yield
        except NotHere:
            raise
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            self.wrong.append(f"{name}: {kind}{' '.join(str(error).split())[:500] or 'an assertion failed'}")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: in the command.
        fault: what is done, for the table.
        holds: what must hold, for the table.
        run: does it.
        count: how often, or for how many seconds, for the table.
        quick: the same in a hurry.
    """

    name: str
    fault: str
    holds: str
    run: Callable[[Work], Outcome]
    count: int
    quick: int


def spread(values: Sequence[float], unit: str, digits: int = 1) -> str:
    """Median and maximum, as the table says them."""
    if not values:
        return "none"
    return f"median {statistics.median(values):.{digits}f} {unit}, longest {max(values):.{digits}f} {unit}"
