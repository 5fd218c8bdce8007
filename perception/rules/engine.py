"""The rules of one source, frame by frame: events that they make, and what each of them says."""

from __future__ import annotations

import math
import time as clock
from collections import defaultdict
from typing import Any

import numpy as np

from perception.card import ModelCard
from perception.errors import UsageError
from perception.events.event import Event, relative_box, utc
from perception.rules.conditions import ConditionWatch, small_map
from perception.rules.settings import Line, Rule, Rules, Zone
from perception.rules.step import BOX, CLASS, CROSSED, ENTERED, ID, KIND, LEFT, RULE, SCORE, VALUE
from perception.rules.tracks import TracksAtRules
from perception.types import Detections, Frame, Prediction, Reading

KINDS = ("crossed", "entered", "left", "loitering", "parked", "moved")
"""Words for the kinds of `perception.rules.step`, in their order."""

USUAL_S = 1 / 30
"""Taken for the time between frames where the source's clock stands still or goes back."""
JUMP_S = 10.0
"""A clock that goes ahead by more than this, and by ten times as much as before, has jumped."""
SHOWN_S = 0.5
"""A line is drawn as active for so long after a crossing."""
MEMORY_S = 2.0
"""A track that was not seen for so long is forgotten; more where the tracker remembers for longer."""

Counts = dict[str, int]
"""By class."""


class RuleEngine:
    """Applies rules to the predictions of one source. Each source needs an engine of its own.

    Time is the source's own, so that the results are the same at any frame rate; so are they at any resolution, because
    coordinates are relative. Memory is bounded by time: what was not seen for `MEMORY_S` is forgotten.

    Args:
        rules: what is looked at.
        card: of the model that predicts.

    Raises:
        UsageError: the model does not give what a rule looks at.

    Example:
        >>> engine = RuleEngine(read_rules("rules.yaml"), model.card)
        >>> events, readings = engine.update(tracked)  # for each prediction, in order
    """

    def __init__(self, rules: Rules, card: ModelCard) -> None:
        rules.check(card)
        self._card = card
        self._rules = rules
        self._names = [] if card.detection is None else card.detection.names
        memory = MEMORY_S
        if card.detection is not None:
            memory = max(memory, card.detection.tracking_settings().memory_s + 0.5)
        self._tracks = TracksAtRules(rules.lines, rules.zones, self._names, memory)
        self._lines = [_LineCounts(line) for line in rules.lines]
        self._zones = [_ZoneCounts(zone) for zone in rules.zones]
        self._watches = []
        if card.segmentation is not None:
            self._watches = [ConditionWatch(condition, card.segmentation) for condition in rules.conditions]
        self._places = [np.array(c.points or np.zeros((0, 2)), np.float32) for c in rules.conditions]
        self._last: float | None = None
        self._usual: float | None = None
        self._now = 0.0

    @property
    def rules(self) -> Rules:
        """What is looked at."""
        return self._rules

    def changed(self, rules: Rules) -> RuleEngine:
        """Return an engine that goes on with other rules; those that stay the same keep what they have counted.

        Raises:
            UsageError: the model does not give what a rule looks at.
        """
        made = RuleEngine(rules, self._card)
        made._last, made._usual, made._now = self._last, self._usual, self._now
        made._tracks = self._tracks.changed(rules.lines, rules.zones)
        parts: list[Any] = [*self._lines, *self._zones, *self._watches]
        kept: dict[Rule, Any] = {part.rule: part for part in parts}
        made._lines = [kept.get(line.rule, line) for line in made._lines]
        made._zones = [kept.get(zone.rule, zone) for zone in made._zones]
        made._watches = [kept.get(watch.rule, watch) for watch in made._watches]
        return made

    def update(self, prediction: Prediction) -> tuple[list[Event], list[Reading]]:
        """Take the next frame.

        Args:
            prediction: with tracked boxes where there are lines or zones, and a class map where there are conditions.

        Returns:
            what happened, and what each rule says now, in the order of the rules.

        Raises:
            UsageError: the prediction lacks what the rules look at.
        """
        frame = prediction.frame
        dt = self._tick(frame.time)
        events: list[Event] = []
        if self._lines or self._zones:
            detections = prediction.detections
            if detections is None or (detections.track_ids is None and len(detections)):
                raise UsageError("lines and zones need tracked boxes: track before the rules", self._rules.where)
            events += self._update_tracks(frame, detections, dt)
        if self._watches:
            events += self._update_watches(prediction)
        return events, self._readings()

    def _tick(self, time: float) -> float:
        """Advance the engine's own clock, which never goes back nor jumps; return the seconds since the last frame."""
        between = math.nan if self._last is None else time - self._last
        if math.isfinite(time):
            self._last = time
        jumped = self._usual is not None and between > max(JUMP_S, 10 * self._usual)
        if math.isfinite(between) and between > 0 and not jumped:
            self._usual = between
        else:
            between = USUAL_S if self._usual is None else self._usual
        self._now += between
        return between

    def _update_tracks(self, frame: Frame, detections: Detections, dt: float) -> list[Event]:
        events = []
        for row in self._tracks.update(detections, self._now, dt, frame.width, frame.height):
            kind, number, name = int(row[KIND]), int(row[RULE]), self._names[int(row[CLASS])]
            told: dict[str, Any] = {}
            if kind == CROSSED:
                line = self._lines[number]
                if not line.counts(name):
                    continue
                told["direction"] = line.rule.directions[0 if row[VALUE] > 0 else 1]
                told["count"] = line.add(told["direction"], name, self._now)
                rule = line.rule.name
            else:
                zone = self._zones[number]
                zone.add(kind, name, float(row[VALUE]))
                told["count"] = zone.inside
                told["duration"] = None if kind == ENTERED else round(float(row[VALUE]), 3)
                rule = zone.rule.name
            events.append(
                _event(
                    frame, KINDS[kind], rule, track_id=int(row[ID]), class_name=name,
                    score=min(max(round(float(row[SCORE]), 4), 0.0), 1.0),
                    box=relative_box(row[BOX : BOX + 4], frame.width, frame.height), **told,
                )
            )  # fmt: skip
        return events

    def _update_watches(self, prediction: Prediction) -> list[Event]:
        class_map = prediction.class_map
        if class_map is None:
            raise UsageError("conditions need the class of each pixel; this prediction has none", self._rules.where)
        events = []
        small = small_map(class_map)
        for watch in self._watches:
            held = watch.update(class_map, small, self._now)
            if held is not None:
                kind = "condition_started" if watch.holds else "condition_ended"
                duration = None if watch.holds else round(held, 3)
                name, value = watch.rule.name, round(watch.value or 0.0, 6)
                events.append(_event(prediction.frame, kind, name, value=value, duration=duration))
        return events

    def _readings(self) -> list[Reading]:
        readings = [line.reading(self._now) for line in self._lines]
        if self._zones:
            stays = self._tracks.staying(self._now)
            readings += [zone.reading(stay) for zone, stay in zip(self._zones, stays, strict=True)]
        for watch, points in zip(self._watches, self._places, strict=False):
            numbers: dict[str, Any] = {"value": round(watch.value or 0.0, 6), "holds": watch.holds}
            text = f"{watch.rule.name} {watch.value or 0.0:.0%}"
            readings.append(Reading(watch.rule.name, "condition", points, numbers, text, watch.holds))
        return readings


def _event(frame: Frame, kind: str, rule: str, **told: Any) -> Event:
    waited = clock.monotonic() - frame.arrived if frame.arrived else 0.0
    when = utc(clock.time() - waited)
    return Event(
        kind=kind, source=frame.source, source_time=frame.time if math.isfinite(frame.time) else 0.0,
        frame=frame.index, rule=rule, time=when, **told,
    )  # fmt: skip


class _LineCounts:
    """How often a line was crossed, by direction and class."""

    def __init__(self, rule: Line) -> None:
        self.rule = rule
        self._points = np.array(rule.points, np.float32)
        self._counts: dict[str, Counts] = {direction: defaultdict(int) for direction in rule.directions}
        self._last = -math.inf
        self._made: Reading | None = None

    def counts(self, name: str) -> bool:
        return self.rule.classes is None or name in self.rule.classes

    def add(self, direction: str, name: str, now: float) -> int:
        """Count a crossing; return how many there were in that direction."""
        self._counts[direction][name] += 1
        self._last = now
        self._made = None
        return sum(self._counts[direction].values())

    def reading(self, now: float) -> Reading:
        active = now - self._last < SHOWN_S
        if self._made is None or self._made.active != active:
            totals = [f"{direction} {sum(counts.values())}" for direction, counts in self._counts.items()]
            numbers = {"crossed": {direction: dict(counts) for direction, counts in self._counts.items()}}
            text = f"{self.rule.name}: {', '.join(totals)}"
            self._made = Reading(self.rule.name, "line", self._points, numbers, text, active)
        return self._made


class _ZoneCounts:
    """Who is in a zone, and how many came and went."""

    def __init__(self, rule: Zone) -> None:
        self.rule = rule
        self.inside = 0
        self._points = np.array(rule.points, np.float32)
        self._entered: Counts = defaultdict(int)
        self._left: Counts = defaultdict(int)
        self._made: Reading | None = None

    def add(self, kind: int, name: str, seconds: float) -> None:
        """Take note of what happened."""
        if kind == ENTERED:
            self._entered[name] += 1
            self.inside += 1
        elif kind == LEFT:
            self._left[name] += 1
            self.inside -= 1
        self._made = None

    def reading(self, stays: dict[int, float]) -> Reading:
        """Return what is said.

        Args:
            stays: seconds inside by track.
        """
        if self._made is None or stays:
            numbers = {
                "inside": self.inside,
                "entered": dict(self._entered),
                "left": dict(self._left),
                "staying": {str(track): round(seconds, 2) for track, seconds in stays.items()},
            }
            text = f"{self.rule.name}: {self.inside}"
            self._made = Reading(self.rule.name, "zone", self._points, numbers, text, self.inside > 0)
        return self._made
