"""Statistics of a stream against their definitions, by a clock of the test's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.card import read_card
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import MaskClassMap
from perception.server.streams.statistics import StreamStatistics, legend
from perception.types import Frame, Prediction
from tests.models import solid, write_model
from tests.server.clocks import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_before_the_first_result_all_is_0(clock: ManualClock) -> None:
    assert (StreamStatistics(clock).fps, StreamStatistics(clock).latency_ms) == (0.0, (0.0, 0.0))
    assert (StreamStatistics(clock).propagated, StreamStatistics(clock).result_age_ms) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("rate", [2.5, 25.0, 100.0])
def test_the_rate_is_that_of_the_last_seconds(clock: ManualClock, rate: float) -> None:
    kept = StreamStatistics(clock)
    for _ in range(200):
        clock.advance(0.01)  # a faster time that is long past
        kept.add(0.0)
    clock.advance(10)
    assert kept.fps == 0
    for _ in range(150):
        clock.advance(1 / rate)
        kept.add(0.0)
    assert kept.fps == pytest.approx(rate, rel=1e-6)
    clock.advance(4)
    assert kept.fps == 0  # it has stopped


@pytest.mark.parametrize("seed", range(3))
def test_latencies_are_percentiles_of_the_latest(clock: ManualClock, seed: int) -> None:
    seconds = np.random.default_rng(seed).exponential(0.02, 1000)
    kept = StreamStatistics(clock)
    for value in seconds:
        kept.add(value)
    latest = np.sort(seconds[-300:]) * 1e3
    p50, p95 = kept.latency_ms
    assert latest[149] <= p50 <= latest[150]
    assert latest[284] <= p95 <= latest[285]


def test_results_are_as_old_as_what_the_network_has_seen(clock: ManualClock) -> None:
    kept = StreamStatistics(clock)
    for _ in range(300):
        kept.add(9.0, 9.0)  # long past
    for _ in range(100):
        kept.add(0.02)
        kept.add(0.01, 0.1)
        kept.add(0.01, 0.1)
    assert kept.propagated == pytest.approx(2 / 3)
    assert kept.latency_ms == pytest.approx((10, 20))
    assert kept.result_age_ms == pytest.approx((100, 100))


def test_the_legend_has_what_is_in_view(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path / "m.onnx", classes=4))
    labels = np.zeros((100, 100), np.uint8)
    labels[:, :30], labels[:, 30], labels[0, 31] = 1, 2, 3
    shown = MaskClassMap(labels, 4, Letterbox.fit(100, 100, 100, 100), ignored=(2,))
    assert legend(Prediction(Frame(solid("red", 100, 100)), class_map=shown), card) == [
        {"id": 0, "name": "red", "color": "#ff0000", "share": 0.6899},
        {"id": 1, "name": "green", "color": "#00ff00", "share": 0.3},
    ]
    assert legend(None, card) == legend(Prediction(Frame(solid("red"))), card) == []
