"""Counts, zones, conditions and the delivery of events, as Prometheus reads them.

They are asked for at each scrape, so nothing stays of rules and streams that are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from perception.events.delivery import Delivery
from perception.types import Reading


class RuleCollector(Collector):
    """What the rules of all streams say now.

    Args:
        readings: of each stream, by its name.
    """

    def __init__(self, readings: Callable[[], list[tuple[str, Sequence[Reading]]]]) -> None:
        self._readings = readings

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        labels = ["stream", "rule"]
        crossed = CounterMetricFamily(
            "perception_line_crossings", "Crossings of a line.", labels=[*labels, "direction", "class"]
        )
        inside = GaugeMetricFamily("perception_zone_inside", "Objects in a zone now.", labels=labels)
        entered = CounterMetricFamily("perception_zone_entered", "Objects that entered.", labels=[*labels, "class"])
        left = CounterMetricFamily("perception_zone_left", "Objects that left.", labels=[*labels, "class"])
        holds = GaugeMetricFamily("perception_condition_holds", "1 while a condition holds.", labels=labels)
        value = GaugeMetricFamily("perception_condition_value", "What a condition compares.", labels=labels)
        seen = set()
        for stream, readings in self._readings():
            for reading in readings:
                rule, numbers = [stream, reading.name], reading.numbers
                if tuple(rule) in seen:  # the same source with another model
                    continue
                seen.add(tuple(rule))
                for direction, counts in numbers.get("crossed", {}).items():
                    for name, count in counts.items():
                        crossed.add_metric([*rule, direction, name], count)
                for family, counts in ((entered, numbers.get("entered", {})), (left, numbers.get("left", {}))):
                    for name, count in counts.items():
                        family.add_metric([*rule, name], count)
                if "inside" in numbers:
                    inside.add_metric(rule, numbers["inside"])
                if "holds" in numbers:
                    holds.add_metric(rule, float(numbers["holds"]))
                    value.add_metric(rule, numbers["value"])
        yield from (crossed, inside, entered, left, holds, value)


class DeliveryCollector(Collector):
    """How each target of events does.

    Args:
        delivery: to them.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("perception_events_waiting", "Events that a target lacks.", labels=["target"])
        ended = CounterMetricFamily(
            "perception_events_ended", "Events by what became of them.", labels=["target", "outcome"]
        )
        failing = GaugeMetricFamily("perception_events_failing", "1 while a target takes none.", labels=["target"])
        for status in self._delivery.status:
            waiting.add_metric([status.name], status.pending)
            failing.add_metric([status.name], float(bool(status.problem)))
            for outcome in ("delivered", "dropped", "refused"):
                ended.add_metric([status.name, outcome], getattr(status, outcome))
        lost = CounterMetricFamily("perception_events_lost", "Events that came faster than they could be written.")
        lost.add_metric([], self._delivery.lost)
        yield from (waiting, ended, failing, lost)
