"""The pipeline with real engines on tiny networks: order, bounds, errors, interruption."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perception.errors import PerceptionError, SinkError, SourceError, UsageError
from perception.model import Model, load_model
from perception.pipeline import predict, run
from perception.pipeline.runner import SINK_QUEUE
from perception.sinks.base import Sink
from perception.sources.base import Source
from perception.types import Frame, Prediction, SourceInfo
from tests.models import solid, write_model

COLORS = ("red", "green", "blue")


class Frames(Source):
    """Solid frames whose colour tells their number; can be slow, live, or fail midway."""

    def __init__(self, count: int, *, fail_at: int | None = None, live: bool = False, delay: float = 0.0) -> None:
        super().__init__()
        self.info = SourceInfo("frames", "camera" if live else "file", 64, 48, live=live, frame_count=count)
        self.read = 0
        self._count, self._fail_at, self._delay = count, fail_at, delay

    def _read(self) -> Iterator[Frame]:
        for i in range(self._count):
            if i == self._fail_at:
                raise SourceError("the cable was pulled", "frames")
            time.sleep(self._delay)
            self.read += 1
            yield Frame(solid(COLORS[i % 3]), index=i, time=i / 25)


class Collect(Sink):
    """Keeps what it is given; can be slow or fail."""

    def __init__(
        self,
        *,
        fail_at: int | None = None,
        delay: float = 0.0,
        picture: bool = False,
        closing: BaseException | None = None,
        opening: Exception | None = None,
    ) -> None:
        self.indices: list[int] = []
        self.pictures: list[object] = []
        self.calls: list[str] = []
        self._fail_at, self._delay, self._opening, self._closing = fail_at, delay, opening, closing
        self.wants_picture = picture  # type: ignore[misc]

    def open(self, info: SourceInfo, card: object = None) -> None:
        self.calls.append("open")
        if self._opening is not None:
            raise self._opening

    def write(self, prediction: Prediction) -> None:
        if len(self.indices) == self._fail_at:
            raise SinkError("no space left on the device", "collect")
        time.sleep(self._delay)
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
    with load_model(path, mode="throughput", precision="f32") as loaded:
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
    before = threading.active_count()
    with Frames(10_000) as source:
        for prediction in predict(source, model):
            if prediction.frame.index == 3:
                break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_slow_sink_bounds_how_far_the_source_is_read_ahead(model: Model) -> None:
    source, sink, stop = Frames(10_000), Collect(delay=0.02), threading.Event()
    gaps = []

    def progress(frames: int, dropped: int) -> None:
        gaps.append(source.read - len(sink.indices))
        if len(sink.indices) >= 20:
            stop.set()

    with source:
        report = run(source, model, sinks=[sink], workers=2, progress=progress, stop=stop)
    # read ahead 2 x workers, being worked on, waiting in order 2 x workers, and in the sink's queue
    assert max(gaps) <= 2 * 2 + 2 + 2 * 2 + SINK_QUEUE + 4
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
    sink = Collect(fail_at=9, delay=0.01)
    with Frames(10) as source, pytest.raises(SinkError, match="no space"):
        run(source, model, sinks=[sink])


def test_a_stage_that_fails_is_named_with_its_cause(model: Model) -> None:
    def stage(prediction: Prediction) -> Prediction:
        raise ZeroDivisionError("by zero")

    with (
        Frames(10) as source,
        pytest.raises(PerceptionError, match=r"the stage stage failed on frame 0: ZeroDivisionError: by zero") as info,
    ):
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
    sink = Collect(delay=0.005)

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
    sink = Collect(delay=0.3)

    def press(frames: int, dropped: int) -> None:
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

    sink = Collect(delay=0.05)
    with pytest.raises(PerceptionError, match="what a terminal"):
        run(Frames(10_000), model, sinks=[sink], progress=progress)
    assert sink.calls == ["open", "abort"]
    written = len(sink.indices)
    time.sleep(0.3)
    assert len(sink.indices) == written
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("perception-")]


def test_a_live_source_is_read_only_when_a_worker_is_free(model: Model) -> None:
    source = Frames(30, live=True)
    ahead = []
    with source:
        for done, _ in enumerate(predict(source, model), 1):
            time.sleep(0.01)
            ahead.append(source.read - done)
    # one being worked on, one read by the next turn, and what waits in order
    assert max(ahead) <= 4
