"""The steps of one source: in order, with state of their own, and one clear error where one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.drawing.annotator import Annotator
from perception.errors import PerceptionError, UsageError
from perception.model import load_model
from perception.pipeline import StageChain, predict, run
from perception.sinks import open_sink
from perception.sources import open_source
from perception.stages.factories import StageFactory
from perception.types import Detections, Frame, Prediction
from tests.drawing.test_annotator import make_card
from tests.models import write_model

CARD = make_card()


def prediction(index: int = 0) -> Prediction:
    found = Detections(np.array([[4, 4, 20, 20]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    return Prediction(Frame(np.full((48, 64, 3), 90, np.uint8), index=index), found)


def marks(name: str) -> Callable[[Prediction], Prediction]:
    return lambda p: replace(p, timings={**p.timings, name: float(len(p.timings))})


class Counter:
    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, prediction: Prediction) -> Prediction:
        self.seen += 1
        return replace(prediction, timings={**prediction.timings, "seen": float(self.seen)})


COUNTER = StageFactory("counter", lambda card: Counter())


def test_stages_in_order_then_the_picture() -> None:
    chain = StageChain(CARD, [marks("a"), COUNTER, marks("b")], Annotator(CARD))
    given = prediction()
    made = chain.apply(given)
    assert made.timings == {"a": 0.0, "seen": 1.0, "b": 2.0} and made.picture is None
    rendered = chain.render(made)
    np.testing.assert_array_equal(rendered.picture, Annotator(CARD)(given))
    assert rendered.timings["draw"] > 0 and rendered.frame is given.frame
    assert given.timings == {} and given.picture is None and "draw" not in made.timings  # nothing was written into


def test_each_chain_has_state_of_its_own() -> None:
    first, second = StageChain(CARD, [COUNTER]), StageChain(CARD, [COUNTER])
    assert [first.apply(prediction()).timings["seen"] for _ in range(3)] == [1, 2, 3]
    assert second.apply(prediction()).timings["seen"] == 1


def broken(prediction: Prediction) -> Prediction:
    raise KeyError("lane")


def forgetful(prediction: Prediction) -> None: ...


def refuses(prediction: Prediction) -> Prediction:
    raise UsageError("this needs boxes")


def test_a_stage_that_fails_is_named_once() -> None:
    with pytest.raises(PerceptionError, match=r"the stage broken failed on frame 7: KeyError: 'lane'") as caught:
        StageChain(CARD, [broken]).apply(prediction(7))
    assert isinstance(caught.value.__cause__, KeyError) and "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="the stage forgetful must return a prediction, not NoneType"):
        StageChain(CARD, [forgetful]).apply(prediction())  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"^this needs boxes$"):
        StageChain(CARD, [refuses]).apply(prediction())
    with pytest.raises(UsageError, match="give an annotator"):
        StageChain(CARD).render(prediction())


def test_run_and_predict_go_through_it(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    with load_model(path) as model:
        for _ in range(2):  # a factory makes a new stage for each run
            with open_source("synthetic:?size=64x48&frames=5") as source:
                seen = [p.timings["seen"] for p in predict(source, model, [COUNTER])]
            assert seen == [1, 2, 3, 4, 5]
        with (
            open_source("synthetic:?size=64x48&frames=5") as source,
            pytest.raises(PerceptionError, match="the stage broken failed on frame 0: KeyError"),
        ):
            run(source, model, stages=[broken], sinks=[open_sink(tmp_path / "out.jsonl")])
