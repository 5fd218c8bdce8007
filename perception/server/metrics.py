"""Prometheus metrics of the server. Label values come from a fixed set, never from what a client sends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from perception.events.delivery import Delivery
from perception.events.event import KINDS
from perception.server.rule_metrics import DeliveryCollector, RuleCollector
from perception.types import Prediction, Reading

Kind: TypeAlias = Literal["stream", "webcam", "job", "api"]
"""The kinds of client that frames are for."""

CONTENT_TYPE = CONTENT_TYPE_LATEST

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
_STATES = ("connecting", "running", "stalled", "reconnecting", "paused", "ended", "failed")


class Metrics:
    """Counters of one server, each in a registry of its own. All methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._frames = Counter("perception_frames", "Frames with a result.", ["kind"], registry=registry)
        self._propagated = Counter(
            "perception_frames_propagated",
            "Frames whose result is that of an earlier one, moved with the picture.",
            ["kind"],
            registry=registry,
        )
        self._dropped = Counter(
            "perception_frames_dropped",
            "Frames replaced by newer ones, or too old.",
            ["kind"],
            registry=registry,
        )
        self._stages = Histogram(
            "perception_stage_seconds", "Time of a frame in a stage.", ["stage"], registry=registry, buckets=_BUCKETS_S
        )
        self._latency = Histogram(
            "perception_latency_seconds",
            "Time from a frame's arrival to its result.",
            ["kind"],
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self._viewers = Gauge("perception_viewers", "Viewers now.", ["kind"], registry=registry)
        self._waiting = Gauge("perception_queue_depth", "Frames waiting for an engine.", ["model"], registry=registry)
        self._descriptions: dict[str, Callable[[], str]] = {}
        self._engines = Info("perception_engine", "The engine that runs a model.", ["model"], registry=registry)
        self._reconnects = Counter("perception_reconnects", "Reconnections of a stream.", ["stream"], registry=registry)
        self._states = Gauge(
            "perception_stream_state", "1 for the current state of a stream.", ["stream", "state"], registry=registry
        )
        self._jobs = Counter("perception_jobs", "Finished jobs, by state.", ["state"], registry=registry)
        self._jobs_waiting = Gauge("perception_jobs_waiting", "Jobs received, waiting or running.", registry=registry)
        self._events = Counter("perception_events", "Events that rules made, by kind.", ["kind"], registry=registry)
        self._refused = Counter("perception_refused", "Error responses, by HTTP status.", ["status"], registry=registry)
        self._throttled = Counter(
            "perception_throttled",
            "Requests and connections of clients beyond their rates, delayed or turned away.",
            ["how"],
            registry=registry,
        )
        self._connections = Gauge("perception_connections", "Requests in progress.", registry=registry)
        self._pixels = Gauge("perception_pixels_in_progress", "Pixels being processed.", registry=registry)
        self._most_pixels = Gauge("perception_pixels_in_progress_most", "Peak of pixels processed.", registry=registry)
        self._pictures = Gauge("perception_pictures_waiting", "Pictures waiting for their turn.", registry=registry)

    def frame_done(self, prediction: Prediction, kind: Kind) -> None:
        """Count a finished frame, its stages, and its latency (from ``frame.arrived``, where that is set)."""
        self._frames.labels(kind).inc()
        if prediction.propagated:
            self._propagated.labels(kind).inc()
        for stage, ms in prediction.timings.items():
            self._stages.labels(stage).observe(ms / 1e3)
        if prediction.frame.arrived:
            self._latency.labels(kind).observe(max(time.monotonic() - prediction.frame.arrived, 0.0))

    def dropped(self, count: int, kind: Kind) -> None:
        """Count frames that were dropped: replaced by newer ones, or too old."""
        self._dropped.labels(kind).inc(count)

    @contextmanager
    def viewer(self, kind: Kind) -> Iterator[None]:
        """Count a viewer while it is there."""
        gauge = self._viewers.labels(kind)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def engine(self, model: str, description: Callable[[], str], waiting: Callable[[], int]) -> None:
        """Register a loaded model; what runs it, and the length of its queue, are asked at each scrape."""
        self._descriptions[model] = description
        self._waiting.labels(model).set_function(waiting)

    def reconnected(self, stream: str) -> None:
        """Count a reconnection of a stream."""
        self._reconnects.labels(stream).inc()

    def stream_state(self, stream: str, state: str) -> None:
        """Set the state of a stream."""
        for name in _STATES:
            self._states.labels(stream, name).set(name == state)

    def stream_gone(self, stream: str) -> None:
        """Remove the metrics of a closed stream, so that names do not pile up."""
        for name in _STATES:
            self._states.remove(stream, name)
        self._reconnects.remove(stream)

    def job_ended(self, state: str) -> None:
        """Count a job that ended as ``done``, ``failed`` or ``cancelled``."""
        self._jobs.labels(state).inc()

    def jobs_waiting(self, count: Callable[[], int]) -> None:
        """Register ``count``, the number of unfinished jobs, called at each scrape."""
        self._jobs_waiting.set_function(count)

    def connections(self, count: Callable[[], int]) -> None:
        """Register ``count``, the number of requests in progress, called at each scrape."""
        self._connections.set_function(count)

    def pixels(self, count: Callable[[], int], most: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Register the pixels in progress, their peak, and the pictures that wait; called at each scrape."""
        self._pixels.set_function(count)
        self._most_pixels.set_function(most)
        self._pictures.set_function(waiting)

    def event(self, kind: str) -> None:
        """Count an event; kinds that are not the package's own are one."""
        self._events.labels(kind if kind in KINDS else "other").inc()

    def watch_rules(
        self, readings: Callable[[], list[tuple[str, Sequence[Reading]]]], delivery: Delivery | None
    ) -> None:
        """Register what rules say and how the delivery of events does; both are asked at each scrape.

        Args:
            readings: of each stream, by its name.
            delivery: None where events go nowhere.
        """
        self.registry.register(RuleCollector(readings))
        if delivery is not None:
            self.registry.register(DeliveryCollector(delivery))

    def refused(self, status: int) -> None:
        """Count an answer with an error."""
        self._refused.labels(str(status)).inc()

    def throttled(self, how: Literal["delayed", "turned away"]) -> None:
        """Count a request or connection that was delayed or turned away."""
        self._throttled.labels(how).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format, `CONTENT_TYPE`."""
        for model, description in list(self._descriptions.items()):
            self._engines.labels(model).info({"engine": description()})
        return generate_latest(self.registry)
