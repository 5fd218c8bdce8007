"""Statistics of a stream against their definitions, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from perception.card import read_card
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import LabelClassMap
from perception.server.streams import statistics as figures
from perception.server.streams.statistics import StreamStatistics, legend
from perception.types import Frame, Prediction
from tests.models import solid, write_model


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(figures, "time", SimpleNamespace(monotonic=lambda: made.now))
    yield made


def test_before_the_first_result_all_is_0(clock: SimpleNamespace) -> None:
    assert (StreamStatistics().fps, StreamStatistics().latency_ms) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("rate", [2.5, 25.0, 100.0])
def test_the_rate_is_that_of_the_last_seconds(clock: SimpleNamespace, rate: float) -> None:
    kept = StreamStatistics()
    for _ in range(200):
        clock.now += 0.01  # a faster time that is long past
        kept.add(0.0)
    clock.now += 10
    assert kept.fps == 0
    for _ in range(150):
        clock.now += 1 / rate
        kept.add(0.0)
    assert kept.fps == pytest.approx(rate, rel=1e-6)
    clock.now += 4
    assert kept.fps == 0  # it has stopped


@pytest.mark.parametrize("seed", range(3))
def test_latencies_are_percentiles_of_the_latest(clock: SimpleNamespace, seed: int) -> None:
    seconds = np.random.default_rng(seed).exponential(0.02, 1000)
    kept = StreamStatistics()
    for value in seconds:
        kept.add(value)
    latest = np.sort(seconds[-300:]) * 1e3
    p50, p95 = kept.latency_ms
    assert latest[149] <= p50 <= latest[150]
    assert latest[284] <= p95 <= latest[285]


def test_the_legend_has_what_is_in_view(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path / "m.onnx", classes=4))
    labels = np.zeros((100, 100), np.uint8)
    labels[:, :30], labels[:, 30], labels[0, 31] = 1, 2, 3
    shown = LabelClassMap(labels, 4, Letterbox.fit(100, 100, 100, 100), ignored=(2,))
    assert legend(Prediction(Frame(solid("red", 100, 100)), class_map=shown), card) == [
        {"id": 0, "name": "red", "color": "#ff0000", "share": 0.6899},
        {"id": 1, "name": "green", "color": "#00ff00", "share": 0.3},
    ]
    assert legend(None, card) == legend(Prediction(Frame(solid("red"))), card) == []
