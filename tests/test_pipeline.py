"""The pipeline with real engines on tiny networks: order, bounds, errors, interruption."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from perception.errors import PerceptionError, SinkError, SourceError, UsageError
from perception.model import Model, load_model
from perception.pipeline import SINK_QUEUE, predict, run
from perception.sinks.base import Sink
from perception.sources.base import Source
from perception.types import Frame, Prediction, SourceInfo
from tests.models import solid, write_model

COLORS = ("red", "green", "blue")
WAIT_S = 60.0
"""Nobody waits so long for what is asserted to happen, however busy the machine is."""


class Frames(Source):
    """Solid frames whose colour tells their number; can be live, or fail midway.

    Attributes:
        read: frames that were asked for so far.
        ended: set once there is no frame left.
        on_read: called for each frame, before it is given.
    """

    def __init__(self, count: int, *, fail_at: int | None = None, live: bool = False) -> None:
        super().__init__()
        self.info = SourceInfo("frames", "camera" if live else "file", 64, 48, live=live, frame_count=count)
        self.read = 0
        self.ended = threading.Event()
        self.on_read: Callable[[], object] = lambda: None
        self._count, self._fail_at = count, fail_at
        self._changed = threading.Condition()

    def wait_for(self, read: int) -> None:
        """Wait until so many frames were asked for, or there are no more."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.read >= min(read, self._count) or self.ended.is_set(), WAIT_S)

    def _read(self) -> Iterator[Frame]:
        for i in range(self._count):
            if i == self._fail_at:
                raise SourceError("the cable was pulled", "frames")
            with self._changed:
                self.read += 1
                self.on_read()
                self._changed.notify_all()
            yield Frame(solid(COLORS[i % 3]), index=i, time=i / 25)
        self.ended.set()


class Collect(Sink):
    """Keeps what it is given; can fail, and wait for something before it takes a frame (given its number)."""

    def __init__(
        self,
        *,
        fail_at: int | None = None,
        before: Callable[[int], object] = lambda number: None,
        picture: bool = False,
        closing: BaseException | None = None,
        opening: Exception | None = None,
    ) -> None:
        self.indices: list[int] = []
        self.pictures: list[object] = []
        self.calls: list[str] = []
        self._fail_at, self._before, self._opening, self._closing = fail_at, before, opening, closing
        self.wants_picture = picture  # type: ignore[misc]

    def open(self, info: SourceInfo, card: object = None) -> None:
        self.calls.append("open")
        if self._opening is not None:
            raise self._opening

    def write(self, prediction: Prediction) -> None:
        self._before(len(self.indices))
        if len(self.indices) == self._fail_at:
            raise SinkError("no space left on the device", "collect")
        assert "abort" not in self.calls
        self.indices.append(prediction.frame.index)
        self.pictures.append(prediction.picture)

    def close(self) -> None:
        self.calls.append("close")
        if self._closing is not None:
            raise self._closing

    def abort(self) -> None:
        self.calls.append("abort")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_model(tmp_path_factory.mktemp("models") / "colors.onnx")
    with load_model(path, mode="throughput", precision="fp32") as loaded:
        yield loaded


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_predictions_come_in_order_and_belong_to_their_frames(model: Model, workers: int) -> None:
    with Frames(50) as source:
        seen = [
            (p.frame.index, int(np.argmax(p.class_map.shares)))  # type: ignore[union-attr]
            for p in predict(source, model, workers=workers)
        ]
    assert seen == [(i, i % 3) for i in range(50)]


def test_leaving_the_loop_early_ends_the_threads(model: Model) -> None:
    before = set(threading.enumerate())
    with Frames(10_000) as source:
        for prediction in predict(source, model):
            if prediction.frame.index == 3:
                break
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)
        assert not thread.is_alive(), thread.name


def test_a_slow_sink_bounds_how_far_the_source_is_read_ahead(model: Model) -> None:
    workers, stop, gaps = 2, threading.Event(), []
    # what must fit in: waiting in order 2 x workers, being worked on, and in the sink's queue
    least = 2 * workers + workers + SINK_QUEUE

    def wait(number: int) -> None:
        if number < 20:
            source.wait_for(number + least)
        else:
            stop.set()

    source, sink = Frames(10_000), Collect(before=wait)
    source.on_read = lambda: gaps.append(source.read - len(sink.indices))
    with source:
        report = run(source, model, sinks=[sink], workers=workers, stop=stop)
    # and read ahead by each worker, drawn, and being written
    assert least <= max(gaps) <= least + 2 * workers + 4
    assert report.interrupted
    assert sink.indices == list(range(report.frames))


def test_stages_see_frames_in_order_and_pictures_reach_only_who_wants_them(model: Model) -> None:
    order: list[int] = []

    def stage(prediction: Prediction) -> Prediction:
        order.append(prediction.frame.index)
        return prediction

    with_picture, without = Collect(picture=True), Collect()
    drawn: list[int] = []

    def annotator(prediction: Prediction) -> np.ndarray:
        drawn.append(prediction.frame.index)
        return prediction.frame.image

    with Frames(12) as source:
        report = run(source, model, sinks=[with_picture, without], stages=[stage], annotator=annotator)
    assert order == drawn == with_picture.indices == without.indices == list(range(12))
    assert all(p is not None for p in with_picture.pictures)
    assert with_picture.calls == without.calls == ["open", "close"]
    assert report.frames == 12
    assert {"decode", "resize", "infer", "postprocess", "draw", "collect"} <= set(report.stage_ms)
    assert report.engine == model.engine.description


def test_nothing_is_drawn_when_no_sink_wants_it(model: Model) -> None:
    def annotator(prediction: Prediction) -> np.ndarray:
        raise AssertionError("drawn for nobody")

    with Frames(3) as source:
        assert run(source, model, sinks=[Collect()], annotator=annotator).frames == 3


def test_a_sink_that_wants_pictures_needs_an_annotator(model: Model) -> None:
    sink = Collect(picture=True)
    with Frames(3) as source, pytest.raises(UsageError, match="annotator"):
        run(source, model, sinks=[sink])
    assert sink.calls == []


def test_a_source_that_fails_midway_loses_no_decoded_frame(model: Model) -> None:
    sink = Collect()
    with Frames(100, fail_at=37) as source, pytest.raises(SourceError, match="cable"):
        run(source, model, sinks=[sink])
    assert sink.indices == list(range(37))
    assert sink.calls == ["open", "abort"]


def test_a_sink_that_fails_stops_all_and_aborts_the_others(model: Model) -> None:
    broken, other = Collect(fail_at=5), Collect()
    source = Frames(100_000)
    with source, pytest.raises(SinkError, match="no space"):
        run(source, model, sinks=[other, broken])
    assert source.read < 200
    assert other.calls == ["open", "abort"]
    assert broken.calls == ["open", "abort"]


def test_a_sink_that_fails_on_the_last_frame_is_not_missed(model: Model) -> None:
    sink = Collect(fail_at=9, before=lambda number: number < 9 or source.ended.wait(WAIT_S))
    with Frames(10) as source, pytest.raises(SinkError, match="no space"):
        run(source, model, sinks=[sink])


def test_a_stage_that_fails_is_named_with_its_cause(model: Model) -> None:
    def stage(prediction: Prediction) -> Prediction:
        raise ZeroDivisionError("by zero")

    with Frames(10) as source, pytest.raises(PerceptionError, match=r"frames: ZeroDivisionError: by zero") as info:
        run(source, model, sinks=[Collect()], stages=[stage])
    assert isinstance(info.value.__cause__, ZeroDivisionError)


def test_an_engine_that_fails_stops_the_run(tmp_path: Path) -> None:
    sink = Collect()
    with load_model(write_model(tmp_path / "m.onnx")) as closed:
        pass
    with Frames(10) as source, pytest.raises(PerceptionError, match="closed"):
        run(source, closed, sinks=[sink])
    assert sink.calls == ["open", "abort"]


def test_no_frames_at_all_is_a_run_too(model: Model) -> None:
    sink = Collect()
    with Frames(0) as source:
        report = run(source, model, sinks=[sink])
    assert (report.frames, report.fps, sink.calls) == (0, 0.0, ["open", "close"])


def test_ctrl_c_finishes_the_sinks_properly(model: Model) -> None:
    sink = Collect()

    def press(frames: int, dropped: int) -> None:
        if frames > 10 and not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    pressed: list[bool] = []
    with Frames(1_000_000) as source:
        report = run(source, model, sinks=[sink], progress=press)
    assert report.interrupted
    assert sink.calls == ["open", "close"]
    assert sink.indices == list(range(report.frames))


def test_a_second_ctrl_c_gives_up_at_once(model: Model) -> None:
    presses, given_up = [], threading.Event()
    sink = Collect(before=lambda number: given_up.wait(WAIT_S))  # so that the first Ctrl-C cannot end it

    def press(frames: int, dropped: int) -> None:
        if len(presses) == 2:
            given_up.set()
            return
        presses.append(frames)
        os.kill(os.getpid(), signal.SIGINT)

    with Frames(1_000_000) as source, pytest.raises(KeyboardInterrupt):
        run(source, model, sinks=[sink], progress=press)
    assert sink.calls == ["open", "abort"]


def test_ctrl_c_while_sinks_are_closed_ends_them_all(model: Model) -> None:
    sinks = [Collect(), Collect(closing=KeyboardInterrupt()), Collect()]
    with pytest.raises(KeyboardInterrupt):
        run(Frames(3), model, sinks=sinks)
    assert [sink.calls for sink in sinks] == [["open", "close"], ["open", "close", "abort"], ["open", "abort"]]


def test_a_sink_that_cannot_be_closed_keeps_no_other_open(model: Model) -> None:
    sinks = [Collect(closing=SinkError("no space left on the device", "x")), Collect()]
    with pytest.raises(SinkError, match="no space left"):
        run(Frames(3), model, sinks=sinks)
    assert [sink.calls for sink in sinks] == [["open", "close", "abort"], ["open", "close"]]


def test_a_sink_that_fails_to_open_is_one_line(model: Model) -> None:
    sinks = [Collect(), Collect(opening=ValueError("what a name")), Collect()]
    with pytest.raises(PerceptionError, match="frames: ValueError: what a name") as caught:
        run(Frames(3), model, sinks=sinks)
    assert isinstance(caught.value.__cause__, ValueError)
    assert [sink.calls for sink in sinks] == [["open", "abort"], ["open", "abort"], []]


def test_a_progress_callback_that_fails_ends_the_threads_before_the_sinks(model: Model) -> None:
    before = set(threading.enumerate())

    def progress(frames: int, dropped: int) -> None:
        if frames > 2:
            raise ValueError("what a terminal")

    sink = Collect()  # fails if it is given a frame after it was aborted
    with pytest.raises(PerceptionError, match="what a terminal"):
        run(Frames(1_000_000), model, sinks=[sink], progress=progress)
    assert sink.calls == ["open", "abort"]
    # without these nobody is there to write any more
    left = [t.name for t in set(threading.enumerate()) - before]
    assert not [name for name in left if name.startswith(("perception-draw", "perception-collect", "perception-infer"))]


def test_a_live_source_is_read_only_when_a_worker_is_free(model: Model) -> None:
    source, done = Frames(30, live=True), 0
    ahead: list[int] = []
    source.on_read = lambda: ahead.append(source.read - done)
    with source:
        for done, _ in enumerate(predict(source, model), 1):
            source.wait_for(done + 3)
    # two that wait in order, and one that is being worked on; one more was read before the last one was taken
    assert 3 <= max(ahead) <= 4
