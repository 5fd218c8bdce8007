"""The rules file: lines, zones and conditions by name, checked before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from perception.card import ModelCard
from perception.common.settings import nearest, read_yaml
from perception.common.strict import Strict
from perception.errors import UsageError
from perception.rules.polygon import area, crossing_edges

Point = tuple[float, float]

ANCHORS: dict[str, Point] = {
    "bottom_center": (0.5, 1.0),
    "center": (0.5, 0.5),
    "top_center": (0.5, 0.0),
    "bottom_left": (0.0, 1.0),
    "bottom_right": (1.0, 1.0),
}
"""Points of a box that can stand for it, as parts of its width and height."""

MOST_RULES, MOST_POINTS = 64, 64
LEAST_LENGTH, LEAST_AREA = 0.001, 0.00001
"""Of lines and of polygons, relative to the frame; what is smaller is a slip of the hand."""


class RuleError(UsageError):
    """Something is wrong with rules.

    Args:
        message: one line, which names the rule.
        where: the file.
        rule: name of the one that is wrong, as it was given; None where it has none, or it is not about one.
    """

    def __init__(self, message: str, where: str | Path | None = None, rule: str | None = None) -> None:
        super().__init__(message, where)
        self.rule = rule


def _points(value: Any) -> Any:
    """Check that each point is two numbers in 0..1, with a word for those who write pixels."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in value):
        raise ValueError("write points as [x, y]: [[0.1, 0.6], [0.9, 0.6]]")
    if len(value) > MOST_POINTS:
        raise ValueError(f"it has {len(value)} points; at most {MOST_POINTS} are allowed")
    for coordinate in (c for point in value for c in point):
        if isinstance(coordinate, bool) or not isinstance(coordinate, (int, float)) or coordinate != coordinate:
            raise ValueError(f"a coordinate must be a number, not {coordinate!r:.40}")
        if not 0 <= coordinate <= 1:
            number = f"{coordinate:g}" if abs(coordinate) < 1e9 else "a large number"  # of digits without end
            if coordinate > 1.5:
                raise ValueError(
                    f"{number} looks like pixels; coordinates are parts of the frame's width and height, 0 to 1"
                )
            raise ValueError(f"{number} is outside of the frame; coordinates go from 0 to 1")
    return [tuple(float(c) for c in point) for point in value]


def _line(points: tuple[Point, ...]) -> tuple[Point, ...]:
    if len(points) != 2:
        raise ValueError(f"a line has 2 points, not {len(points)}")
    (x0, y0), (x1, y1) = points
    if max(abs(x1 - x0), abs(y1 - y0)) < LEAST_LENGTH:
        raise ValueError("its points are the same, so it has no length")
    return points


def _polygon(points: tuple[Point, ...]) -> tuple[Point, ...]:
    if len(points) > 1 and points[0] == points[-1]:  # closed by hand, as some programs write it
        points = points[:-1]
    if len(points) < 3:
        raise ValueError(f"a polygon has at least 3 points, not {len(points)}")
    if len(set(points)) < len(points):
        raise ValueError("two of its points are the same")
    crossing = crossing_edges(points)
    if crossing is not None:
        first, second = ("-".join(str((i + k) % len(points) + 1) for k in (0, 1)) for i in crossing)
        raise ValueError(f"the polygon crosses itself: its edges {first} and {second} meet")
    if area(points) < LEAST_AREA:
        raise ValueError("the polygon has no area")
    return points


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Points = Annotated[tuple[Point, ...], BeforeValidator(_points)]
LinePoints = Annotated[Points, AfterValidator(_line)]
Polygon = Annotated[Points, AfterValidator(_polygon)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Classes = Annotated[tuple[Name, ...] | None, BeforeValidator(_names), Field(min_length=1, max_length=1000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _OfBoxes(Strict):
    """What lines and zones have in common.

    Attributes:
        name: unlike that of any other rule of the file.
        classes: of boxes that it looks at; None: all.
        anchor: the point of a box that stands for it, see `ANCHORS`.
        hold_s: a box must be on a side, or inside, for so many seconds to be believed there.
        distance: and so far from the line or the edge, in parts of the frame's shorter side.
    """

    name: Name
    classes: Classes = None
    anchor: Literal["bottom_center", "center", "top_center", "bottom_left", "bottom_right"] = "bottom_center"
    hold_s: float = Field(default=0.2, ge=0, le=60, allow_inf_nan=False)
    distance: float = Field(default=0.01, ge=0, le=0.25, allow_inf_nan=False)


class Line(_OfBoxes):
    """A line that is crossed; crossings are counted by direction and class.

    Attributes:
        points: its two ends.
        directions: names of the two ways over it: first that to the left of somebody who walks from its first point to
            its second (upwards over a line that is drawn from left to right), then the way back.
    """

    kind: ClassVar[str] = "line"
    points: LinePoints
    directions: tuple[Name, Name] = ("forward", "backward")

    @model_validator(mode="after")
    def _told_apart(self) -> Line:
        if self.directions[0] == self.directions[1]:
            raise ValueError(f"both directions are called {self.directions[0]!r}")
        return self


class Zone(_OfBoxes):
    """A polygon that boxes enter, stay in and leave.

    Attributes:
        points: its corners, in order.
        loitering_s: a box that stays for so many seconds loiters; None: nobody asks.
        parked_s: a box that stands still for so many seconds inside is parked; None: nobody asks.
    """

    kind: ClassVar[str] = "zone"
    points: Polygon
    loitering_s: Seconds | None = None
    parked_s: Seconds | None = None


class Condition(Strict):
    """A share of pixels that is over or under a threshold for some time.

    Attributes:
        name: unlike that of any other rule of the file.
        pixels: the class of pixels, ``class`` in the file.
        on: only those that stand on pixels of this class: below which, in their column, it comes next.
        points: corners of a polygon outside of which no pixel is looked at; None: the whole frame.
        over, under: the threshold; one of the two. A part of the pixels that are looked at.
        for_s: seconds that the condition must hold to begin, and must not hold to end.
    """

    kind: ClassVar[str] = "condition"
    name: Name
    pixels: Name = Field(alias="class")
    on: Name | None = None
    points: Polygon | None = None
    over: Share | None = None
    under: Share | None = None
    for_s: float = Field(default=1.0, ge=0, le=86_400, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_threshold(self) -> Condition:
        if (self.over is None) == (self.under is None):
            raise ValueError("give either over or under")
        if self.on == self.pixels:
            raise ValueError(f"pixels of {self.on!r} cannot stand on themselves")
        return self

    def holds(self, value: float) -> bool:
        """Return whether a share is beyond the threshold."""
        if self.over is not None:
            return value > self.over
        assert self.under is not None
        return value < self.under


Rule = Line | Zone | Condition
Kind = type[Line] | type[Zone] | type[Condition]


@dataclass(frozen=True)
class Rules:
    """All rules of a file.

    Attributes:
        lines, zones, conditions: in the file's order.
        where: the file, for messages.
    """

    lines: tuple[Line, ...] = ()
    zones: tuple[Zone, ...] = ()
    conditions: tuple[Condition, ...] = ()
    where: str | None = None

    def __iter__(self) -> Iterator[Rule]:
        yield from self.lines
        yield from self.zones
        yield from self.conditions

    def __len__(self) -> int:
        return len(self.lines) + len(self.zones) + len(self.conditions)

    @property
    def of_boxes(self) -> bool:
        """True where a rule looks at tracked boxes."""
        return bool(self.lines or self.zones)

    def check(self, card: ModelCard) -> None:
        """Check that a model gives what the rules look at.

        Raises:
            RuleError: it has no boxes or no pixels, or not of a class that a rule names.
        """
        for rule in self:
            boxes = not isinstance(rule, Condition)
            task = card.detection if boxes else card.segmentation
            what = "boxes" if boxes else "pixels"
            if task is None:
                does = " and ".join(card.tasks)
                raise RuleError(f"{_title(rule)} needs {what}; {card.name} does {does} only", self.where, rule.name)
            wanted = (rule.classes or ()) if not isinstance(rule, Condition) else (rule.pixels, rule.on)
            for name in wanted:
                if name is not None and name not in task.names:
                    fault = f"{card.name} has no {what} of {name!r}{nearest(name, task.names)}"
                    raise RuleError(f"{_title(rule)}: {fault}", self.where, rule.name)

    def fitting(self, card: ModelCard) -> tuple[Rules, list[RuleError]]:
        """Return the rules for which a model gives what they look at, and what is wrong with the others."""
        fit: dict[str, list[Any]] = {part: [] for part in _KINDS}
        faults = []
        for part in _KINDS:
            for rule in getattr(self, part):
                try:
                    Rules(**{part: (rule,)}, where=self.where).check(card)
                    fit[part].append(rule)
                except RuleError as fault:
                    faults.append(fault)
        return Rules(**{part: tuple(rules) for part, rules in fit.items()}, where=self.where), faults

    def without(self, names: Collection[str | None]) -> Rules:
        """Return these rules but those of some names."""
        kept = {part: tuple(rule for rule in getattr(self, part) if rule.name not in names) for part in _KINDS}
        return Rules(**kept, where=self.where)

    def __add__(self, other: Rules) -> Rules:
        """Return these rules and others after them; no two may have one name."""
        return Rules(self.lines + other.lines, self.zones + other.zones, self.conditions + other.conditions, self.where)

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return what `make_rules` takes; what has its usual value is left out."""
        parts = {"lines": self.lines, "zones": self.zones, "conditions": self.conditions}
        return {
            name: [rule.model_dump(mode="json", by_alias=True, exclude_defaults=True) for rule in rules]
            for name, rules in parts.items()
            if rules
        }


_KINDS: dict[str, Kind] = {"lines": Line, "zones": Zone, "conditions": Condition}


def read_rules(path: str | Path) -> Rules:
    """Read rules from a YAML file.

    Raises:
        UsageError: the file cannot be read, or a rule is wrong: the message names the file, the rule and the fault.
    """
    return make_rules(read_yaml(path, "rules file"), path)


def make_rules(data: Any, where: str | Path | None = None, *, empty: bool = False) -> Rules:
    """Check rules.

    Args:
        data: a mapping with any of ``lines``, ``zones`` and ``conditions``, each a list of rules.
        where: the file that they are from, for messages.
        empty: there may be none.

    Raises:
        RuleError: one of them is wrong, two have one name, or there are none or too many.
    """
    if not isinstance(data, Mapping):
        raise RuleError("rules are a mapping of lists: lines, zones, conditions", where)
    made: dict[str, tuple[Any, ...]] = {}
    taken: dict[str, str] = {}
    for part, entries in data.items():
        if part not in _KINDS:
            raise RuleError(f"unknown part {part!r:.80}{nearest(str(part), _KINDS)}", where)
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise RuleError(f"{part} must be a list of rules, each with a dash in front", where)
        made[part] = tuple(_make(_KINDS[part], entry, i, where) for i, entry in enumerate(entries, 1))
        for rule in made[part]:
            if rule.name in taken:
                twice = f"two rules are called {rule.name!r}, a {taken[rule.name]} and a {rule.kind}"
                raise RuleError(twice, where, rule.name)
            taken[rule.name] = rule.kind
    if not taken and not empty:
        raise RuleError("there are no rules: give lines, zones or conditions", where)
    if len(taken) > MOST_RULES:
        raise RuleError(f"there are {len(taken)} rules; at most {MOST_RULES} are allowed", where)
    return Rules(**made, where=None if where is None else str(where))


def _make(kind: Kind, entry: Any, number: int, where: str | Path | None) -> Rule:
    title = f"{kind.kind} {number}"
    if not isinstance(entry, Mapping):
        raise RuleError(f"{title}: it must be a mapping with a name", where)
    name = entry.get("name") if isinstance(entry.get("name"), str) else None
    if name:
        title = f"{kind.kind} {name!r:.80}"
    known = [field.alias or name for name, field in kind.model_fields.items()]
    for key in entry:
        if key not in known:
            raise RuleError(f"{title}: unknown setting {key!r:.80}{nearest(str(key), known)}", where, name)
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        text = fault["msg"].removeprefix("Value error, ")
        raise RuleError(f"{title}: {f'{place}: ' if place else ''}{text}", where, name) from None


def _title(rule: Rule) -> str:
    return f"{rule.kind} {rule.name!r}"
