"""The results of a stream: to its stages, its events and whoever waits for the newest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from perception.card import ModelCard
from perception.footage.recorder import FootageRecorder
from perception.model import Inference
from perception.server.metrics import Metrics
from perception.server.streams.statistics import StreamStatistics, legend
from perception.server.streams.views import Carried, Result, Views
from perception.types import Event, Prediction

LATE = 10
"""After so many results in a row that came too late to be shown, a stream says so."""


class Results:
    """The results of one stream, of which the newest is kept. One thread publishes, any may take.

    Args:
        views: what interprets them.
        changed: notified of each.
        clock: seconds, the one of `Frame.arrived`.
        metrics: of the server.
        publish: is given each event of the plain interpretation, under the stream's name; must not wait.
        footage: gives these events their clips and snapshots.
        name: of the stream.

    Attributes:
        count: of those published.
        statistics: of them.
    """

    def __init__(
        self,
        views: Views,
        changed: threading.Condition,
        clock: Callable[[], float],
        metrics: Metrics,
        publish: Callable[[Event], None] | None,
        footage: FootageRecorder | None,
        name: str,
    ) -> None:
        self.count = 0
        self.statistics = StreamStatistics(clock)
        self._views = views
        self._changed = changed
        self._now = clock
        self._metrics = metrics
        self._publish_event = publish
        self._footage = footage
        self._name = name
        self._late = 0
        self._newest: Result | None = None

    def complaint(self, age_s: float) -> str:
        """One line on what is wrong though results come; mostly empty. ``age_s``: see `publish`."""
        if self._late >= LATE:
            return f"results take longer than {age_s:g} s and are not shown: this machine is too busy"
        problem = self._views.problem
        return f"{problem}; shown without stages" if problem else ""

    def status(self, card: ModelCard) -> dict[str, Any]:
        """What there is to say of them, for JSON: a part of `Stream.status`."""
        newest = self.newest
        (p50, p95), (seen_p50, seen_p95) = self.statistics.latency_ms, self.statistics.result_age_ms
        return {
            "rules": {r.name: dict(r.numbers) for r in (newest.readings or ())} if newest else {},
            "fps": round(self.statistics.fps, 2),
            "latency_ms": {"p50": round(p50, 2), "p95": round(p95, 2)},
            "propagated": round(self.statistics.propagated, 3),
            "result_age_ms": {"p50": round(seen_p50, 2), "p95": round(seen_p95, 2)},
            "frames": self.count,
            "legend": legend(newest, card),
            "boxes": 0 if newest is None or newest.detections is None else len(newest.detections),
            "age_s": round(self._now() - newest.frame.arrived, 3) if newest else None,
        }

    @property
    def newest(self) -> Prediction | None:
        """The newest under plain options, or None before the first one."""
        result = self._newest
        return None if result is None else self._views.plain(result)

    def publish(self, inference: Inference, age_s: float, carried: Carried | None = None) -> bool:
        """Show the next one to all; False where its frame came longer than ``age_s`` ago, and it is not shown.

        Args:
            inference: what the network says of a frame.
            age_s: the longest ago, in seconds.
            carried: the later frame that it is shown with; None: the frame itself.
        """
        result = Result(self.count, inference, carried)
        arrived = result.frame.arrived
        if self._now() - arrived > age_s:
            self._late += 1
            return False
        self._late = 0
        prediction = self._views.advance(result)
        self._metrics.frame_done(prediction, "stream")
        if self._footage is not None:
            prediction = self._footage(prediction)
        for event in prediction.events:
            self._metrics.event(event.kind)
            if self._publish_event is not None:
                self._publish_event(replace(event, source=self._name))
        with self._changed:
            self._newest = result
            self.count += 1
            now = self._now()
            self.statistics.add(now - arrived, None if carried is None else now - inference.frame.arrived)
            self._changed.notify_all()
        return True

    def forget(self) -> None:
        """The stream is closed: its pictures go with it, and not when nothing refers to it any more."""
        self._newest = None
        self._views.forget()

    def newer_than(self, number: int, timeout: float | None, over: Callable[[], bool]) -> Result | None:
        """The newest if its number is above ``number``, waiting for one; None once ``over`` or too late."""
        with self._changed:
            self._changed.wait_for(
                lambda: over() or (self._newest is not None and self._newest.number > number), timeout
            )
            result = self._newest
            return None if result is None or result.number <= number else result
