"""Things that walk over lines and into zones, of which it is known by construction how often.

A walk is made in the coordinates of a line, or of a zone's edge: how far along, and how far off on which side. It is
put together of acts (stand clear of it, go over, flicker upon it, go round its end), each of which says itself what is
to be counted. Nothing here asks where two segments meet. Places are in units of the frame's shorter side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard, validate_card
from perception.events.event import Event
from perception.rules.engine import RuleEngine
from perception.rules.settings import Rules, make_rules
from perception.types import Detections, Frame, Prediction

F64 = NDArray[np.float64]
CLASSES = ["car", "truck", "person"]
SIZES = [(640, 360), (3840, 2160)]
RATES = [5.0, 12.5, 30.0]
WIDE = 16 / 9


def card() -> ModelCard:
    data = {"name": "boxes", "licence": "none", "input": {"width": 64, "height": 48}}
    return validate_card({**data, "detection": {"classes": CLASSES, "score_threshold": 0.4}}, "test")


def blank(size: tuple[int, int]) -> Any:
    """A picture of any size that takes no memory."""
    return np.broadcast_to(np.zeros(3, np.uint8), (size[1], size[0], 3))


@dataclass
class Walk:
    """A way in straight parts: seconds, and places (along, off) at those; and what is to be counted of it."""

    class_id: int = 0
    times: list[float] = field(default_factory=lambda: [0.0])
    places: list[tuple[float, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    stays: list[float] = field(default_factory=list)
    size: tuple[float, float] = (0.06, 0.08)

    def to(self, along: float, off: float, speed: float) -> Walk:
        x, y = self.places[-1]
        return self.stand(max(np.hypot(along - x, off - y) / speed, 1e-3), along, off)

    def stand(self, seconds: float, along: float | None = None, off: float | None = None) -> Walk:
        x, y = self.places[-1]
        self.times.append(self.times[-1] + seconds)
        self.places.append((x if along is None else along, y if off is None else off))
        return self

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def at(self, times: F64) -> F64:
        """Places (along, off) at some times, ``[N, 2]``."""
        places = np.array(self.places)
        return np.stack([np.interp(times, self.times, places[:, k]) for k in (0, 1)], axis=1)


LANE = 0.1


def walk_over_line(
    rng: np.random.Generator,
    length: float,
    lane: int,
    fastest: float = 1.5,
    acts: int = 5,
    round_it: bool = True,
    rest: float = 0.8,
) -> Walk:
    """Stand clear of a line on alternate sides, or not, with every kind of nonsense in between.

    Args:
        lane: each walk has a lane of its own: two that jump to where the other was have changed identities.
        round_it: go round its ends now and then, which nobody may do unseen: the straight way leads over the line.
        rest: least seconds of a stay; more than for what it may be unseen, for what nobody sees is not counted.
    """
    side = float(rng.choice([-1, 1]))

    def aside() -> float:
        return (lane + 1) * LANE + float(rng.uniform(-0.02, 0.02))

    along = aside()

    def clear() -> float:
        return float(rng.uniform(0.05, 0.13))

    walk = Walk(int(rng.integers(len(CLASSES))), places=[(along, side * clear())])
    walk.stand(rest + rng.uniform(0, 0.7))
    for _ in range(acts):
        speed = float(rng.uniform(0.08, fastest))
        act = rng.choice(["over", "flicker", "back", "end", "round"][: 5 if round_it else 4])
        along = aside()
        if act in ("flicker", "over"):  # across, at once or after some flickering upon it
            if act == "flicker":
                flicker(walk, rng, walk.places[-1][0], speed)
            walk.count("forward" if side > 0 else "backward")
            side = -side
            walk.to(walk.places[-1][0], side * clear(), speed)
        elif act == "back":  # flicker, and back to where it came from
            flicker(walk, rng, along, speed)
            walk.to(along, side * clear(), speed)
        elif act == "end":  # flicker at the very end, and back
            flicker(walk, rng, float(rng.choice([0.0, length])), speed, along_too=True)
            walk.to(along, side * clear(), speed)
        else:  # round the end to the other side, which is no crossing
            end = -0.06 if rng.random() < 0.5 else length + 0.06
            speed = min(speed, 0.25)  # or it would cut the corner between two frames, and be seen to cross
            walk.to(end, walk.places[-1][1], speed)
            side = -side
            walk.to(end, side * clear(), speed)
            walk.to(along, walk.places[-1][1], speed)
        walk.stand(rest + rng.uniform(0, 0.7))
    return walk


def flicker(walk: Walk, rng: np.random.Generator, along: float, speed: float, along_too: bool = False) -> None:
    walk.to(along, walk.places[-1][1], speed)
    for _ in range(int(rng.integers(4, 12))):
        aside = rng.uniform(-0.004, 0.004) if along_too else 0.0
        walk.to(along + aside, rng.uniform(-0.005, 0.005), speed)
        walk.stand(rng.uniform(0.02, 0.3))


@dataclass
class Place:
    """Where the coordinates of a walk are in the frame."""

    origin: F64
    ahead: F64
    aside: F64

    def map(self, places: F64) -> F64:
        return self.origin + places[:, :1] * self.ahead + places[:, 1:] * self.aside


def place_of(rng: np.random.Generator, length: float, depth: float = 0.0) -> Place:
    """A line of some length about the middle of the frame, in any direction; off is to its right as one walks along."""
    angle = rng.uniform(0, 2 * np.pi)
    ahead = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-ahead[1], ahead[0]])
    middle = np.array([WIDE / 2, 0.53]) + rng.uniform(-0.03, 0.03, 2)
    return Place(middle - length / 2 * ahead - depth / 2 * aside, ahead, aside)


def relative(points: F64) -> list[list[float]]:
    return (points / [WIDE, 1.0]).tolist()


def line_rule(place: Place, length: float, **settings: Any) -> dict[str, Any]:
    return {"name": "line", "points": relative(place.map(np.array([[0.0, 0], [length, 0]]))), **settings}


def frames(
    walks: list[Walk],
    place: Place,
    rate: float,
    size: tuple[int, int],
    rng: np.random.Generator,
    jitter: float = 0.0008,
    missing: float = 0.0,
    begin: float = 0.0,
) -> list[Prediction]:
    """What a perfect tracker gives of some walks, but for jitter and boxes that are missing now and then.

    Args:
        missing: about the part of the time that a track is not seen, for up to 0.8 s at once.
    """
    until = max(walk.times[-1] for walk in walks)
    times = np.arange(0, until + 2.5, 1 / rate) + rng.uniform(0, 1 / rate)
    boxes, there = [], []
    for walk in walks:
        anchors = place.map(walk.at(times)) + rng.normal(0, jitter, (len(times), 2))
        (w, h), (x, y) = walk.size, anchors.T
        boxes.append(np.stack([x - w / 2, y - h, x + w / 2, y], axis=1) * size[1])
        seen = times <= walk.times[-1]
        at = 0.0
        while missing and at < walk.times[-1]:
            gone = rng.uniform(0.1, 0.8)
            at += 0.4 + rng.uniform(0, 2 * gone * (1 - missing) / missing)
            seen &= ~((times >= at) & (times < at + gone))
            at += gone
        there.append(seen)
    predictions = []
    for k, time in enumerate(times.tolist()):
        rows = [i for i in range(len(walks)) if there[i][k]]
        found = Detections(
            np.array([boxes[i][k] for i in rows], np.float32).reshape(-1, 4), np.full(len(rows), 0.9, np.float32),
            np.array([walks[i].class_id for i in rows], np.int32), np.array([i + 1 for i in rows], np.int64),
        )  # fmt: skip
        predictions.append(Prediction(Frame(blank(size), index=k, time=begin + time, source="scene"), found))
    return predictions


def run(rules: dict[str, Any] | Rules, predictions: list[Prediction]) -> tuple[list[Event], dict[str, Any]]:
    """Events, and the numbers of all rules in the last frame."""
    engine = RuleEngine(rules if isinstance(rules, Rules) else make_rules(rules), card())
    events: list[Event] = []
    readings: list[Any] = []
    for prediction in predictions:
        new, readings = engine.update(prediction)
        events += new
    return events, {reading.name: reading.numbers for reading in readings}


def counted(walks: list[Walk], whats: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """By what and by class what is to be counted of all walks."""
    sums: dict[str, dict[str, int]] = {what: {} for what in whats}
    for walk in walks:
        for what, number in walk.counts.items():
            name = CLASSES[walk.class_id]
            sums[what][name] = sums[what].get(name, 0) + number
    return sums
