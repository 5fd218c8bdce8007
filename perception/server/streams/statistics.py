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

    def add(self, latency_s: float) -> None:
        """A result is shown now, so long after its frame arrived."""
        with self._lock:
            self._shown_at.append(self._clock())
            self._latencies.append(1e3 * latency_s)

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
            latencies = list(self._latencies)
        p50, p95 = np.percentile(latencies, (50, 95)).tolist() if latencies else (0.0, 0.0)
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
