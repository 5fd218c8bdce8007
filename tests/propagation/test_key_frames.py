"""Which frames the network sees, what the others get, and what is measured of it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perception.errors import SourceError, UsageError
from perception.model import Model, load_model
from perception.pipeline import run
from perception.propagation.key_frames import MOST, MOST_S, KeyFrames
from perception.propagation.loss import ASSUMED, ASSUMED_WEIGHT, PropagationLoss
from perception.sinks import open_sink
from perception.sources.base import Source
from perception.types import Detections, Frame, Prediction, SourceInfo
from tests.models import write_model
from tests.postprocess.test_smoothing import world

WIDTH, HEIGHT, FPS = 320, 192, 25


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Tells bright from dark, with boxes."""
    path = tmp_path_factory.mktemp("models") / "m.onnx"
    write_model(path, width=WIDTH, height=HEIGHT, classes=["white", "black"], detection=True)
    with load_model(path, engine="openvino", precision="fp32") as loaded:
        yield loaded


def views(count: int, step: float = 2.0, seed: int = 0, cuts: tuple[int, ...] = ()) -> list[Frame]:
    """What a camera sees that goes along a picture, and elsewhere at each cut."""
    frames, scene, at = [], world(seed), 20.0
    for index in range(count):
        if index in cuts:
            scene, at = world(seed + index), 20.0
        x = round(at)
        image = np.ascontiguousarray(scene[100 : 100 + HEIGHT, x : x + WIDTH])
        frames.append(Frame(image, index=index, time=index / FPS, source="views"))
        at = (at + step) % 600
    return frames


def seen_by(frames: list[Frame], max_loss: float = 0.01) -> list[bool]:
    keys = KeyFrames(max_loss)
    return [keys.next(frame).seen for frame in frames]


def test_the_network_sees_the_first_frame_and_then_few() -> None:
    seen = seen_by(views(200))
    assert seen[0]
    gaps = np.diff(np.flatnonzero(seen))
    assert gaps.max() <= MOST
    assert 200 / MOST <= sum(seen) <= 80
    assert seen == seen_by(views(200))  # the same every time


def test_each_cut_is_a_key_frame() -> None:
    cuts = (31, 62, 63, 130)
    seen = seen_by(views(150, cuts=cuts))
    assert all(seen[index] for index in cuts)


def test_noise_has_no_motion_so_all_of_it_is_seen() -> None:
    rng = np.random.default_rng(0)
    frames = [
        Frame(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), index=i, time=i / FPS, source="noise")
        for i in range(20)
    ]
    assert all(seen_by(frames))


def test_a_small_picture_and_another_size_are_seen() -> None:
    small = [Frame(np.zeros((16, 20, 3), np.uint8), index=i, time=i / FPS) for i in range(5)]
    assert all(seen_by(small))
    frames = views(4) + [Frame(np.zeros((100, 200, 3), np.uint8), index=4, time=4 / FPS)]
    assert seen_by(frames)[4]


@pytest.mark.parametrize("times", [[0, 0.1, 0.2, 0.3, 0.1], [0, 0.1, 0.2, 0.3, 0.3 + 1.1 * MOST_S]])
def test_a_clock_that_jumps_begins_anew(times: list[float]) -> None:
    frames = [frame.at(time=time) for frame, time in zip(views(5), times, strict=True)]
    key, seen = 0.0, []
    keys = KeyFrames(0.5)
    for frame in frames:
        step = keys.next(frame)
        if step.seen:
            key = frame.time
        else:
            assert step.motion is not None and 0 <= frame.time - key <= MOST_S
        seen.append(step.seen)
    assert seen[0] and seen[4]


@pytest.mark.parametrize("max_loss", [0.0, -0.1, 1.0, float("nan")])
def test_a_loss_out_of_range_is_refused(max_loss: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        KeyFrames(max_loss)


@pytest.mark.parametrize("at_once", [False, True])
def test_propagated_masks_and_boxes_are_nearly_the_networks(model: Model, at_once: bool) -> None:
    keys, wrong, stale, compared = KeyFrames(0.05, at_once=at_once), 0.0, 0.0, 0
    last = np.zeros(0)
    given: deque[tuple[Prediction, bool]] = deque()
    frames = views(60, step=3)
    for frame in frames:
        step = keys.next(frame)
        own = model.predict(frame)
        given.append((own, step.seen))
        results = keys.results(own if step.seen else Prediction(frame), step)
        assert len(results) == 1 or not at_once
        for result in results + (keys.rest() if frame is frames[-1] else []):
            own, seen = given.popleft()
            assert result.frame is own.frame and result.propagated is (not seen)
            assert own.class_map is not None and result.class_map is not None
            if seen:
                last = own.class_map.mask
                assert result is own
                continue
            compared += 1
            assert result.detections is not None
            wrong += float((own.class_map.mask != result.class_map.mask).mean())
            stale += float((own.class_map.mask != last).mean())
    assert not given
    assert compared > 30
    assert wrong / compared < 0.02
    assert wrong < 0.25 * stale
    told = keys.loss.as_dict()
    assert set(told) <= {"pixels", "boxes"}


@pytest.mark.parametrize("cut", [False, True])
def test_boxes_between_two_key_frames_come_from_both_unless_there_is_a_cut(cut: bool) -> None:
    """What only the second one has is there before it, too; and what is said of one scene says nothing of another."""
    frames = views(40, cuts=tuple(range(1, 40)) if cut else ())
    keys = KeyFrames(0.5)
    one = Detections(np.array([[50, 40, 90, 100]], np.float32), np.array([0.9], np.float32), np.zeros(1, np.int32))
    results: list[Prediction] = []
    for frame in frames:
        step = keys.next(frame)
        there = one if keys.seen > 1 else Detections.empty()
        results += keys.results(Prediction(frame, detections=there) if step.seen else Prediction(frame), step)
    second = [result.propagated for result in results[1:]].index(False) + 1
    counts = [len(result.detections) for result in results[:second] if result.detections is not None]
    assert counts == ([0] if cut else [0] + [1] * (second - 1))
    assert second == 1 if cut else second > 1


def test_what_is_held_is_given_where_no_key_frame_comes_any_more(model: Model, tmp_path: Path) -> None:
    """Whatever the number of frames, all come out, in order."""
    for count in range(1, 12):
        path = tmp_path / f"{count}.jsonl"
        report = run(Views(views(count)), model, sinks=[open_sink(path)], max_loss=0.1)
        assert report.frames == count
        assert [json.loads(line)["index"] for line in path.read_text().splitlines()] == list(range(count))


def test_a_fault_of_the_source_comes_after_what_is_held(model: Model, tmp_path: Path) -> None:
    class Broken(Views):
        def _read(self) -> Iterator[Frame]:
            yield from self._given
            raise SourceError("the end of it is damaged", "views")

    with pytest.raises(SourceError, match="damaged"):
        run(Broken(views(7)), model, sinks=[open_sink(tmp_path / "a.jsonl")], max_loss=0.1)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 7


class Views(Source):
    def __init__(self, frames: list[Frame]) -> None:
        super().__init__()
        self.info = SourceInfo("views", "file", WIDTH, HEIGHT, frame_count=len(frames))
        self._given = frames

    def _read(self) -> Iterator[Frame]:
        yield from self._given


@pytest.mark.parametrize("workers", [1, 4])
def test_the_pipeline_says_which_rows_are_propagated(model: Model, tmp_path: Path, workers: int) -> None:
    frames = views(120, cuts=(40,))
    rows = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.jsonl"
        report = run(Views(frames), model, sinks=[open_sink(path)], workers=workers, max_loss=0.02)
        written = [json.loads(line) for line in path.read_text().splitlines()]
        for row in written:
            del row["timings"]
        rows.append(written)
    assert rows[0] == rows[1]
    assert [row["index"] for row in rows[0]] == list(range(120))
    propagated = [row.get("propagated", False) for row in rows[0]]
    assert not propagated[0] and not propagated[40]
    assert report.frames == 120 and report.seen == propagated.count(False) < 70
    assert report.loss is not None and all("shares" in row and "detections" in row for row in rows[0])


def test_every_frame_is_seen_unless_asked(model: Model, tmp_path: Path) -> None:
    report = run(Views(views(12)), model, sinks=[open_sink(tmp_path / "a.jsonl")])
    assert report.seen is None and report.loss is None
    assert "propagated" not in (tmp_path / "a.jsonl").read_text()


# What is measured


@pytest.mark.parametrize("seed", range(5))
def test_the_slope_is_that_of_weighted_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps, weights = rng.integers(1, MOST, 40), rng.uniform(0.1, 1, 40)
    values = 0.03 + 0.004 * (gaps - 1) + rng.normal(0, 0.003, 40)
    loss = PropagationLoss()
    for gap, value, weight in zip(gaps.tolist(), values.tolist(), weights.tolist(), strict=True):
        loss.add("pixels", gap, value, weight)
    for gap in (0, 1, 2, 3):
        loss.frame(gap)
    # What is assumed is one more row: the slope itself, with its weight.
    rows = np.concatenate(
        (np.stack((np.ones(40), gaps - 1.0), 1) * np.sqrt(weights)[:, None], [[0, ASSUMED_WEIGHT**0.5]])
    )
    right = np.concatenate((values * np.sqrt(weights), [ASSUMED * ASSUMED_WEIGHT**0.5]))
    jitter, slope = np.linalg.lstsq(rows, right, rcond=None)[0]
    told = loss.as_dict()["pixels"]
    assert told["jitter"] == pytest.approx(jitter, rel=1e-6)
    assert told["loss"] == pytest.approx(slope * (0 + 0 + 1 + 2) / 4, rel=1e-6)
    assert told["comparisons"] == 40
    assert told["interval"] is not None and 0 < told["interval"] < 0.002


def test_the_longest_interval_keeps_the_mean_loss_below_the_bound() -> None:
    for slope in (0.0005, 0.003, 0.01, 0.05):
        loss = PropagationLoss()
        for gap in range(1, MOST):
            for _ in range(200):
                loss.add("pixels", gap, 0.02 + slope * (gap - 1))
        longest = loss.longest(0.01, MOST)

        def mean(n: int, slope: float = slope) -> float:
            return sum(slope * max(k - 1, 0) for k in range(n)) / n

        assert mean(longest) <= 0.0101
        assert longest == MOST or mean(longest + 1) > 0.0099


def test_the_kind_that_loses_most_decides() -> None:
    loss = PropagationLoss()
    for gap in (1, 2, 3, 4) * 50:
        loss.add("pixels", gap, 0.01)
    wide = loss.longest(0.01, MOST)
    for gap in (1, 2, 3, 4) * 50:
        loss.add("boxes", gap, 0.02 * gap)
    assert loss.longest(0.01, MOST) < wide == MOST
