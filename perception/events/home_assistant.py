"""What Home Assistant reads over MQTT: entities that it discovers, and their states."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from perception.common.version import __version__
from perception.events.event import Event, seconds_of

MOTION_S = 30
"""Seconds after the last event for which there is motion."""

OLD_S = 60.0
"""Events that come later than this, after an outage say, are no motion now."""

MOST_ENTITIES = 1000
"""Entities of one process; rules beyond are not announced."""

_OCCUPANCY = ("entered", "left")
_CONDITION = ("condition_started", "condition_ended")


class Message(NamedTuple):
    """What is published.

    Attributes:
        topic, payload: of the message.
        retain: the broker gives it to those who subscribe later.
    """

    topic: str
    payload: str
    retain: bool


@dataclass(frozen=True)
class RuleOutline:
    """What a rule will tell of, as is known before it has told anything.

    Attributes:
        source, rule: names.
        kind: ``line``, ``zone`` or ``condition``.
        directions: of a line.
    """

    source: str
    rule: str
    kind: str
    directions: tuple[str, ...] = ()


@dataclass
class _Rule:
    """What is known of a rule from its events."""

    source: str
    name: str
    state: dict[str, Any] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    directions: dict[str, str] = field(default_factory=dict)

    def key_of(self, direction: str) -> str:
        """The name of a direction in the state."""
        return self.directions.setdefault(direction, slug(direction).replace("-", "_"))


class HomeAssistant:
    """Turns events into the messages from which Home Assistant makes and updates entities.

    Each source is a device. It has *motion*; each of its lines a counter for each direction; each zone the number of
    objects inside, and whether it is occupied; each condition whether it holds, and what it compared. All follow from
    the absolute numbers in events, so that a state that was missed is right again with the next one.

    Args:
        topic: under which everything is published.
        prefix: under which Home Assistant looks for entities, ``homeassistant`` if it was not changed there.
    """

    def __init__(self, topic: str = "perception", prefix: str = "homeassistant") -> None:
        self.topic = topic
        self.prefix = prefix
        self.availability = f"{topic}/availability"
        self._rules: dict[tuple[str, str], _Rule] = {}
        self._motion: dict[str, float] = {}
        self._announced: dict[str, Message] = {}

    def expect(self, outlines: Sequence[RuleOutline]) -> None:
        """Have the entities of rules ready before their first events, with what holds at the start: nothing yet."""
        for outline in outlines:
            rule = self._rule(outline.source, outline.rule)
            if rule is None:
                return
            if outline.kind == "line":
                counts = {rule.key_of(direction): 0 for direction in outline.directions}
                rule.state = {"crossed": counts}
            elif outline.kind == "zone":
                rule.kinds.update(_OCCUPANCY)
                rule.state = {"inside": 0, "occupied": "OFF"}
            else:
                rule.kinds.update(_CONDITION)
                rule.state = {"holds": "OFF", "value": None}
            for _ in self._announce(rule):
                pass  # published with `everything`, as soon as there is a connection

    def event_topic(self, source: str) -> str:
        """Return the topic of a source's events."""
        return f"{self.topic}/{slug(source)}/events"

    def of_event(self, event: Event) -> Iterator[Message]:
        """Yield what an event changes: entities that are new, then states."""
        rule = self._rule(event.source, event.rule)
        if rule is None:
            return
        rule.kinds.add(event.kind)
        rule.state |= _state(event, rule)
        yield from self._announce(rule)
        if rule.state:
            yield self._state_of(rule)
        happened = seconds_of(event.time)
        if time.time() - happened < OLD_S:
            yield Message(f"{self.topic}/{slug(event.source)}/motion", "ON", False)

    def _rule(self, source: str, name: str) -> _Rule | None:
        """What is known of a rule; None where there are too many."""
        key = source, name
        if key not in self._rules and len(self._rules) >= MOST_ENTITIES:
            return None
        return self._rules.setdefault(key, _Rule(*key))

    def _announce(self, rule: _Rule) -> Iterator[Message]:
        """Yield entities of a rule that are new, or not as they were."""
        for message in (self._motion_entity(rule.source), *self._entities(rule)):
            if message.topic not in self._announced and len(self._announced) >= MOST_ENTITIES:
                continue
            if self._announced.get(message.topic) != message:
                self._announced[message.topic] = message
                yield message

    def everything(self) -> Iterator[Message]:
        """Yield all entities and states again, for a Home Assistant or a broker that has forgotten them."""
        yield from self._announced.values()
        for rule in self._rules.values():
            if rule.state:
                yield self._state_of(rule)

    def _state_of(self, rule: _Rule) -> Message:
        topic = f"{self.topic}/{slug(rule.source)}/{slug(rule.name)}/state"
        return Message(topic, json.dumps(rule.state, ensure_ascii=False), True)

    def _motion_entity(self, source: str) -> Message:
        return self._entity(
            "binary_sensor", source, "motion", "Motion", f"{self.topic}/{slug(source)}/motion",
            device_class="motion", off_delay=MOTION_S,
        )  # fmt: skip

    def _entities(self, rule: _Rule) -> Iterator[Message]:
        topic = self._state_of(rule).topic
        name, place = rule.name or "rule", slug(rule.name)

        def entity(kind: str, what: str, title: str, **more: Any) -> Message:
            return self._entity(kind, rule.source, f"{place}_{what}", f"{name} {title}".strip(), topic, **more)

        for direction, key in rule.directions.items():
            yield entity(
                "sensor", f"count_{key}", direction, state_class="total_increasing", icon="mdi:counter",
                value_template=f"{{{{ value_json.crossed.{key} }}}}",
            )  # fmt: skip
        if rule.kinds & {*_OCCUPANCY}:
            yield entity(
                "sensor", "inside", "inside", state_class="measurement", value_template="{{ value_json.inside }}"
            )
            yield entity(
                "binary_sensor", "occupancy", "", device_class="occupancy", value_template="{{ value_json.occupied }}"
            )
        if rule.kinds & {*_CONDITION}:
            yield entity("binary_sensor", "condition", "", value_template="{{ value_json.holds }}")
            yield entity("sensor", "value", "value", state_class="measurement", value_template="{{ value_json.value }}")

    def _entity(self, kind: str, source: str, what: str, name: str, topic: str, **more: Any) -> Message:
        device = f"{slug(self.topic)}_{slug(source)}"
        config = {
            "name": name,
            "unique_id": f"{device}_{what}",
            "state_topic": topic,
            "availability_topic": self.availability,
            "device": {
                "identifiers": [device],
                "name": source,
                "manufacturer": "Perception",
                "model": "Camera",
                "sw_version": __version__,
            },
            "origin": {"name": "perception", "sw_version": __version__},
            **more,
        }
        return Message(
            f"{self.prefix}/{kind}/{device}/{what}/config", json.dumps(config, ensure_ascii=False, sort_keys=True), True
        )


def _state(event: Event, rule: _Rule) -> dict[str, Any]:
    """The part of a rule's state that an event tells."""
    if event.kind == "crossed" and event.count is not None:
        key = rule.key_of(event.direction or "all")
        return {"crossed": {**rule.state.get("crossed", {}), key: event.count}}
    if event.kind in _OCCUPANCY and event.count is not None:
        return {"inside": event.count, "occupied": "ON" if event.count else "OFF"}
    if event.kind in _CONDITION:
        return {"holds": "ON" if event.kind == "condition_started" else "OFF", "value": event.value}
    return {}


def slug(text: str) -> str:
    """Return a part of a topic for any name: letters, digits and underscores, unlike that of any other name."""
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40]
    if plain == text:
        return plain
    return f"{plain}_{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:6]}".lstrip("_")
