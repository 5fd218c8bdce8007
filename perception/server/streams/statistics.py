"""Statistics of a stream: results a second, latencies, and what is in view."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from perception.card import ModelCard
from perception.types import Prediction

RATE_S = 3.0
"""Results a second are counted over so long."""

LEAST_SHARE = 0.0005
"""A class with a smaller part of the picture is not in the legend."""


class StreamStatistics:
    """The latest results of one stream. All methods may be called from any thread.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._shown_at: deque[float] = deque(maxlen=120)
        self._latencies: deque[float] = deque(maxlen=300)
        self._ages: deque[tuple[float, bool]] = deque(maxlen=300)

    def add(self, latency_s: float, seen_s: float | None = None) -> None:
        """A result is shown now.

        Args:
            latency_s: seconds since its frame arrived.
            seen_s: seconds since the earlier frame arrived whose results it shows; None: its own.
        """
        with self._lock:
            self._shown_at.append(self._clock())
            self._latencies.append(1e3 * latency_s)
            self._ages.append((1e3 * (latency_s if seen_s is None else seen_s), seen_s is not None))

    @property
    def fps(self) -> float:
        """Results a second, over the last `RATE_S`; 0 where there are too few."""
        since = self._clock() - RATE_S
        with self._lock:
            shown = [at for at in self._shown_at if at > since]
        return (len(shown) - 1) / (shown[-1] - shown[0]) if len(shown) > 2 and shown[-1] > shown[0] else 0.0

    @property
    def latency_ms(self) -> tuple[float, float]:
        """Median and 95th percentile of the latest results, milliseconds; 0 before the first."""
        with self._lock:
            return _percentiles([*self._latencies])

    @property
    def result_age_ms(self) -> tuple[float, float]:
        """The same of the time since the frame arrived that the network has seen, where that is an earlier one."""
        with self._lock:
            return _percentiles([age for age, _ in self._ages])

    @property
    def propagated(self) -> float:
        """Part of the latest results, in 0..1, that are an earlier frame's."""
        with self._lock:
            return sum(carried for _, carried in self._ages) / len(self._ages) if self._ages else 0.0


def _percentiles(values: list[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(values, (50, 95)).tolist() if values else (0.0, 0.0)
    return p50, p95


def legend(prediction: Prediction | None, card: ModelCard) -> list[dict[str, Any]]:
    """The classes of pixels that are in view, largest part first, for JSON."""
    task = card.segmentation
    if prediction is None or prediction.class_map is None or task is None:
        return []
    shares, ignored = prediction.class_map.shares, prediction.class_map.ignored
    return [
        {
            "id": i,
            "name": task.classes[i].name,
            "color": "#{:02x}{:02x}{:02x}".format(*task.classes[i].color),
            "share": round(float(shares[i]), 4),
        }
        for i in np.argsort(-shares).tolist()
        if shares[i] >= LEAST_SHARE and i not in ignored
    ]
