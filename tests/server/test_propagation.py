"""Streams whose engine does not keep up: frames get what the network said of earlier ones, moved with the picture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception import load_model
from perception.card import validate_card, write_card
from perception.errors import UsageError
from perception.model import Inference, Model
from perception.postprocess.post_processing import DetectionOptions
from perception.rules.settings import make_rules
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import Metrics
from perception.server.rule_book import RuleBook
from perception.server.settings import make_settings
from perception.types import Frame, Prediction
from tests.postprocess.test_smoothing import world
from tests.server.clocks import ManualClock
from tests.server.streams import CALM, Scripted, stream_of
from tests.server.waiting import wait_for

pytestmark = pytest.mark.usefixtures("no_stream_is_left_behind")

WIDTH, HEIGHT, SIDE = 320, 192, 48
STEP = 3
"""Pixels that the square goes from one frame to the next."""


def write_finder(path: Path) -> Path:
    """A network that finds one red square exactly: the centre of the red pixels, and by their variance its sides.

    Its class map tells red from all else.
    """
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    constants = {
        "red_weight": np.array([[-1, 0, 1], [0, 0, 0]], np.float32)[:, :, None, None] / 10,  # BGR: red without blue
        "red_bias": np.array([-2, 2], np.float32),
        "x": columns[None, None].astype(np.float32), "y": rows[None, None].astype(np.float32),
        "three": np.float32(3), "few": np.float32(1e-3), "many": np.float32(100),
        "none": np.float32(0), "largest": np.float32(0.95),
        "first": np.array([0], np.int64), "second": np.array([1], np.int64), "all": np.array([1, 2, 3], np.int64),
    }  # fmt: skip

    def node(kind: str, given: str, made: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, given.split(), [made], **attributes)

    def mean(of: str, made: str) -> list[onnx.NodeProto]:
        return [
            node("Mul", f"{of} red", f"{made}_weighted"),
            node("ReduceSum", f"{made}_weighted all", f"{made}_sum", keepdims=1),
            node("Div", f"{made}_sum area", made),
        ]

    nodes = [
        node("Cast", "frames", "floats", to=TensorProto.FLOAT),
        node("Transpose", "floats", "planes", perm=[0, 3, 1, 2]),
        node("Conv", "planes red_weight red_bias", "full_logits"),
        node("AveragePool", "full_logits", "class_logits", kernel_shape=[4, 4], strides=[4, 4]),
        node("Slice", "full_logits first second second", "redness"),
        node("Sign", "redness", "sign"),
        node("Relu", "sign", "red"),
        node("ReduceSum", "red all", "count", keepdims=1),
        node("Max", "count few", "area"),
        *mean("x", "cx"), *mean("y", "cy"),
        node("Sub", "x cx", "dx"), node("Mul", "dx dx", "dx2"), *mean("dx2", "vx"),
        node("Sub", "y cy", "dy"), node("Mul", "dy dy", "dy2"), *mean("dy2", "vy"),
        node("Mul", "vx three", "wx"), node("Sqrt", "wx", "hx"),
        node("Mul", "vy three", "wy"), node("Sqrt", "wy", "hy"),
        node("Sub", "cx hx", "x1"), node("Sub", "cy hy", "y1"), node("Add", "cx hx", "x2"), node("Add", "cy hy", "y2"),
        node("Concat", "x1 y1 x2 y2", "corners", axis=3), node("Squeeze", "corners second", "boxes"),
        node("Div", "count many", "sure"), node("Squeeze", "sure second", "flat"),
        node("Clip", "flat none largest", "scores"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "finder",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])],
        [
            helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, ["N", 2, HEIGHT // 4, WIDTH // 4]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 1, 1]),
        ],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    red, rest = {"name": "red", "color": [255, 0, 0]}, {"name": "rest", "color": [0, 0, 255]}
    card = {
        "name": "finder", "licence": "MIT", "trained_on": ["nothing"],
        "input": {"width": WIDTH, "height": HEIGHT},
        "segmentation": {"classes": [red, rest]}, "detection": {"classes": [red]},
    }  # fmt: skip
    write_card(made, validate_card(card, "finder"))
    onnx.save(made, str(path))
    return path


def place(index: int) -> tuple[int, int]:
    """Left and upper edge of the square."""
    return 20 + STEP * index, 60


def picture(index: int, seed: int = 0) -> np.ndarray:
    """A red square, textured so that its motion can be seen, before a gray wall."""
    image = (world(seed)[:HEIGHT, :WIDTH] // 2 + 60).astype(np.uint8)
    x, y = place(index)
    image[y : y + SIDE, x : x + SIDE] = 0
    image[y : y + SIDE, x : x + SIDE, 2] = world(7)[:SIDE, 200 : 200 + SIDE, 0] // 2 + 127
    return image


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_finder(tmp_path_factory.mktemp("models") / "finder.onnx")
    with load_model(path, engine="openvino", precision="fp32") as model:
        yield model


class Gate:
    """A model whose network takes until it is told to go on."""

    def __init__(self, model: Model) -> None:
        self.model = model.with_options(DetectionOptions())
        self.begun: list[int] = []
        self._open = threading.Semaphore(0)
        infer = self.model.infer

        def wait(frame: Any) -> Inference:
            self.begun.append(frame.index)
            assert self._open.acquire(timeout=60)
            return infer(frame)

        self.model.infer = wait  # type: ignore[method-assign]

    def go(self, count: int = 1) -> None:
        """Let the network end so many frames."""
        self._open.release(count)


class Bench:
    """A camera, a slow network and a viewer, in steps."""

    def __init__(self, gate: Gate, source: Scripted, stream: Any, viewer: Any, clock: ManualClock) -> None:
        self.gate, self.source, self.stream, self.viewer, self.clock = gate, source, stream, viewer, clock
        self.shown: list[Prediction] = []

    def frame(self) -> None:
        """The camera gives a frame."""
        self.clock.advance(0.04)
        self.source.put()

    def taken(self) -> None:
        """What waits to be shown has been looked at."""
        wait_for(lambda: self.stream._intake._passing is None)

    def see(self) -> Prediction:
        """The next result."""
        prediction = self.viewer.next(60)
        assert prediction is not None, self.stream.status()
        self.shown.append(prediction)
        return prediction


@contextmanager
def bench(loaded: Model, pictures: list[np.ndarray], every: Any = "auto", **options: Any) -> Iterator[Bench]:
    gate, clock = Gate(loaded), ManualClock()
    source = Scripted(pictures=pictures, clock=clock)
    with (
        Scheduler(gate.model) as scheduler,
        stream_of("", scheduler, connect=lambda: source, timeouts=CALM, clock=clock, every=every, **options) as stream,
    ):
        with stream.subscribe() as viewer:
            yield Bench(gate, source, stream, viewer, clock)
        gate.go(1000)


def play(made: Bench, count: int, slow: int) -> None:
    """Frames, of which the network is done with one when ``slow`` more have come."""
    made.frame()
    made.gate.go()
    assert made.see().frame.index == 0
    made.frame()  # the network is idle, and this is shown only where it is done before the next one comes
    wait_for(lambda: made.gate.begun == [0, 1])
    for index in range(2, count):
        made.frame()
        assert made.see().frame.index == index
        if index % slow == 0:
            begun = len(made.gate.begun)
            made.gate.go()
            wait_for(lambda b=begun: len(made.gate.begun) > b)  # it has gone on with the newest frame


def truth(index: int) -> np.ndarray:
    x, y = place(index)
    return np.array([x, y, x + SIDE, y + SIDE], np.float32)


def test_the_network_of_these_tests_finds_the_square(loaded: Model) -> None:
    for index in (0, 13, 40):
        found = loaded.predict(Frame(picture(index))).detections
        assert found is not None and len(found) == 1
        assert np.abs(found.boxes[0] - truth(index)).max() < 0.5


def test_overlays_come_as_often_as_frames_and_are_where_things_are(loaded: Model) -> None:
    metrics = Metrics()
    with bench(loaded, [picture(index) for index in range(24)], metrics=metrics) as made:
        play(made, 24, slow=4)
        status = made.stream.status()
    assert [one.frame.index for one in made.shown] == [0, *range(2, 24)]
    assert [one.propagated for one in made.shown] == [False, *[True] * 22]
    assert (status["frames"], status["dropped"]) == (23, 1)
    assert status["propagated"] == pytest.approx(22 / 23, abs=1e-3)
    assert 'perception_frames_propagated_total{kind="stream"} 22.0' in metrics.render().decode()
    for one in made.shown:
        index = one.frame.index
        assert one.detections is not None and one.class_map is not None
        [box] = one.detections.boxes
        assert np.abs(box - truth(index)).max() < 0.1 * SIDE, index
        own = loaded.predict(one.frame).class_map
        assert own is not None
        red, expected = one.class_map.mask == 0, own.mask == 0
        assert (red & expected).sum() / (red | expected).sum() > 0.75, index
        assert one.picture is not None


def test_the_age_of_what_the_network_said_is_measured(loaded: Model) -> None:
    with bench(loaded, [picture(index) for index in range(10)]) as made:
        play(made, 10, slow=100)
        status = made.stream.status()
    assert status["latency_ms"] == {"p50": 0, "p95": 0}  # by the test's clock
    p50, p95 = np.percentile([40 * gap for gap in (0, 2, 3, 4, 5, 6, 7, 8, 9)], (50, 95))  # frame 1 is not shown
    assert status["result_age_ms"] == {"p50": pytest.approx(p50), "p95": pytest.approx(p95)}


def test_a_frame_that_shows_something_else_waits_for_the_network(loaded: Model) -> None:
    pictures = [picture(index) if index < 5 else ~picture(index, seed=100) for index in range(12)]
    with bench(loaded, pictures) as made:
        play(made, 5, slow=100)
        for _ in range(5, 8):
            made.frame()  # a cut: no motion explains it
            made.taken()
        wait_for(lambda: made.gate.begun == [0, 1])
        made.gate.go()  # frame 1, which is too late to be shown
        wait_for(lambda: made.gate.begun == [0, 1, 7])
        made.gate.go()
        prediction = made.see()
        assert (prediction.frame.index, prediction.propagated) == (7, False)
        made.frame()
        made.gate.go()
        assert made.see().frame.index == 8
        wait_for(lambda: made.stream.status()["dropped"] == 3)  # 1, 5 and 6


def test_what_was_said_too_long_ago_is_carried_no_further(loaded: Model) -> None:
    with bench(loaded, [picture(0)]) as made:
        play(made, 26, slow=100)  # to one second
        made.frame()
        made.taken()
        made.gate.go()
        wait_for(lambda: made.gate.begun == [0, 1, 26])
        made.gate.go()
        assert (made.see().frame.index, made.shown[-1].propagated) == (26, False)


def test_else_frames_for_which_there_is_no_time_are_dropped(loaded: Model) -> None:
    with bench(loaded, [picture(index) for index in range(12)], every=1) as made:
        made.frame()
        made.gate.go()
        assert made.see().frame.index == 0
        made.frame()
        wait_for(lambda: made.gate.begun == [0, 1])
        for _ in range(4):
            made.frame()
        made.gate.go()
        assert made.see().frame.index == 1
        wait_for(lambda: made.gate.begun == [0, 1, 5])
        made.gate.go()
        assert made.see().frame.index == 5
        assert not any(one.propagated for one in made.shown)
        assert made.stream.status()["dropped"] == 3


def test_an_engine_that_keeps_up_sees_every_frame(loaded: Model) -> None:
    with bench(loaded, [picture(index) for index in range(10)]) as made:
        for index in range(10):
            made.gate.go()
            made.frame()
            assert made.see().frame.index == index
        assert not any(one.propagated for one in made.shown)
        assert made.stream.status()["dropped"] == 0
        assert made.stream.status()["propagated"] == 0


def test_it_can_be_turned_on_and_off_while_the_stream_runs(loaded: Model) -> None:
    with bench(loaded, [picture(index) for index in range(30)], every=1) as made:
        made.stream.adjust(None, 1.0, False, every="auto")
        play(made, 6, slow=100)
        assert made.shown[-1].propagated
        made.stream.adjust(None, 1.0, False, every=1)
        made.frame()
        made.gate.go()
        wait_for(lambda: made.gate.begun == [0, 1, 6])
        made.gate.go()
        assert (made.see().frame.index, made.shown[-1].propagated) == (6, False)


@pytest.mark.parametrize("slow", [1, 6])
def test_identities_stay_and_what_crosses_a_line_is_counted_once(loaded: Model, slow: int) -> None:
    """As with a network that sees every frame: ``slow`` of 1 is one that is a frame behind."""
    rules = make_rules({"lines": [{"name": "gate", "points": [[0.5, 0.95], [0.5, 0.05]]}]})
    with bench(loaded, [picture(index) for index in range(54)], rules=RuleBook(loaded.card, rules)) as made:
        play(made, 54, slow=slow)
        [reading] = made.stream.readings
    found = [one.detections for one in made.shown if one.detections is not None and len(one.detections)]
    ids = [[] if each.track_ids is None else each.track_ids.tolist() for each in found]
    assert len(ids) > 44 and all(each == [1] for each in ids)
    assert [event.kind for one in made.shown for event in one.events] == ["crossed"]
    assert made.shown[-1].propagated and reading.name == "gate"


def test_it_is_a_setting_of_a_source() -> None:
    settings = make_settings({"sources": {"a": "rtsp://a/1", "b": {"uri": "rtsp://b/1", "every": "auto"}}})
    assert (settings.sources["a"].every, settings.sources["b"].every) == (1, "auto")
    with pytest.raises(UsageError, match=r"sources\.b\.every"):
        make_settings({"sources": {"b": {"uri": "rtsp://b/1", "every": 3}}})
