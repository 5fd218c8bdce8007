"""An engine whose device is lost: who goes on, who is closed, and the way back. Engines here compute nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.engines import fallback
from perception.engines.base import Engine
from perception.engines.fallback import FallbackEngine
from perception.errors import EngineError

FRAMES = np.zeros((1, 2, 2, 3), np.uint8)


class Made(Engine):
    """Says who it is, until its device is lost."""

    path = Path("made.onnx")
    precision = "fp32"
    streams = 1
    input_shape = (None, 2, 2, 3)

    def __init__(self, name: str) -> None:
        self.name = self.description = name
        self.lost = self.closed = False

    def _run(self, frames: Any) -> dict[str, Any]:
        if self.closed:
            raise self._closed_error()
        if self.lost:
            raise EngineError("the GPU has fallen off the bus")
        return {"name": self.name}

    def close(self) -> None:
        self.closed = True


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    monkeypatch.setattr(fallback, "RETRY_S", 0.01)
    return []


def engine_with(opened: list[Made], refusals: int) -> FallbackEngine:
    """A GPU that can be opened again after some refusals, and a CPU."""
    left = [refusals]

    def open_as(name: str) -> Made:
        if name == "gpu" and left[0]:
            left[0] -= 1
            raise EngineError("no device")
        opened.append(Made(name))
        return opened[-1]

    opened.append(Made("gpu"))
    return FallbackEngine(opened[0], lambda: open_as("gpu"), [lambda: open_as("cpu")])


def test_a_lost_gpu_is_closed_and_taken_back_when_it_works(
    opened: list[Made], caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_with(opened, refusals=3)
    assert engine.infer(FRAMES)["name"] == "gpu"  # type: ignore[comparison-overlap]
    opened[0].lost = True
    assert engine.infer(FRAMES)["name"] == "cpu"  # type: ignore[comparison-overlap]
    until(lambda: engine.name == "gpu")
    assert opened[0].closed  # its memory is free
    assert engine.description == "gpu" and engine.infer(FRAMES)["name"] == "gpu"  # type: ignore[comparison-overlap]
    cpu = opened[1]
    assert not cpu.closed  # kept for the next time
    assert "gpu works again" in caplog.text
    opened[-1].lost = True
    assert engine.infer(FRAMES)["name"] == "cpu"  # type: ignore[comparison-overlap]
    assert [e.name for e in opened].count("cpu") == 1
    until(lambda: engine.name == "gpu")
    engine.close()
    assert all(e.closed for e in opened)
    with pytest.raises(EngineError, match="closed"):
        engine.infer(FRAMES)


def test_attempts_become_rarer(opened: list[Made], monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    engine = engine_with(opened, refusals=9)
    wait = engine._ended.wait
    monkeypatch.setattr(fallback, "RETRY_S", 30.0)
    monkeypatch.setattr(engine, "_wait_s", 30.0)
    monkeypatch.setattr(engine._ended, "wait", lambda seconds: (waited.append(seconds), wait(0))[1])
    opened[0].lost = True
    engine.infer(FRAMES)
    until(lambda: engine.name == "gpu")
    assert waited == [30, 60, 120, 240, 480, 600, 600, 600, 600, 600]
    opened[-1].lost = True  # at once: not from the beginning
    engine.infer(FRAMES)
    until(lambda: engine.name == "gpu")
    assert waited[10:] == [600]
    monkeypatch.setattr(engine, "_taken", time.monotonic() - 601)  # after ten minutes: from the beginning
    opened[-1].lost = True
    engine.infer(FRAMES)
    until(lambda: engine.name == "gpu")
    assert waited[11:] == [30]
    engine.close()


def test_closed_while_the_gpu_is_opened_again(opened: list[Made]) -> None:
    entered, go = threading.Event(), threading.Event()
    late = Made("gpu")

    def reopen() -> Made:
        entered.set()
        assert go.wait(60)
        return late

    engine = FallbackEngine(Made("gpu"), reopen, [lambda: Made("cpu")])
    engine._first.lost = True  # type: ignore[attr-defined]
    engine.infer(FRAMES)
    assert entered.wait(60)
    engine.close()
    go.set()
    until(lambda: late.closed)


def test_threads_lose_no_call_on_the_way_there_and_back(opened: list[Made]) -> None:
    engine = engine_with(opened, refusals=2)
    answers: list[Any] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            answers.append(engine.infer(FRAMES)["name"])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        lost = next(e for e in reversed(opened) if e.name == "gpu")
        lost.lost = True
        until(lambda lost=lost: engine.name == "gpu" and engine._first is not lost)  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert set(answers) == {"gpu", "cpu"}
    engine.close()


def test_nothing_to_go_on_with_is_the_first_error() -> None:
    engine = FallbackEngine(Made("gpu"), lambda: Made("gpu"), [])
    engine._first.lost = True  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="fallen off the bus"):
        engine.infer(FRAMES)
    engine.close()
