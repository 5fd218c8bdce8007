"""Boxes of things that move, of which the truth is known, at any frame rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.tracking.tracker import Tracker
from perception.types import Detections

Place = Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class Thing:
    """Something that is seen between two times, at a place that depends on the time."""

    place: Place
    size: tuple[float, float] = (60.0, 120.0)
    begin: float = 0.0
    end: float = 1e9
    hidden: tuple[float, float] = (1e9, 1e9)
    score: float = 0.9
    class_id: int = 0


def straight(x: float, y: float, vx: float, vy: float) -> Place:
    return lambda t: (x + vx * t, y + vy * t)


def detections(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    order = np.argsort(-np.array(scores, np.float32), kind="stable")
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4)[order], np.array(scores, np.float32)[order],
        np.array(classes, np.int32)[order],
    )  # fmt: skip


def frames(
    things: list[Thing], times: NDArray[np.float64], seed: int = 0, jitter: float = 0.0
) -> Iterator[tuple[float, Detections, list[int]]]:
    """Time, detections, and the number of the thing that each of these is of, for each frame."""
    rng = np.random.default_rng(seed)
    for time in times.tolist():
        rows = []
        for number, thing in enumerate(things):
            if not thing.begin <= time < thing.end or thing.hidden[0] <= time < thing.hidden[1]:
                continue
            (x, y), (w, h) = thing.place(time), thing.size
            edges = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            edges = edges + rng.normal(0, 1, 4) * jitter * np.array([w, h, w, h])
            rows.append((thing.score - 1e-4 * number, edges.tolist(), thing.class_id, number))
        rows.sort(key=lambda row: -row[0])
        found = detections([r[1] for r in rows], [r[0] for r in rows], [r[2] for r in rows])
        yield time, found, [r[3] for r in rows]


def follow(
    tracker: Tracker, things: list[Thing], times: NDArray[np.float64], seed: int = 0, jitter: float = 0.0
) -> dict[int, list[tuple[float, int]]]:
    """By number of a thing: times at which it was tracked, and as what. Which box is whose is told by its place."""
    known: dict[int, list[tuple[float, int]]] = {number: [] for number in range(len(things))}
    for time, found, numbers in frames(things, times, seed, jitter):
        tracked = tracker.update(found, time)
        assert tracked.track_ids is not None and tracked.track_ids.dtype == np.int64
        assert len(set(tracked.track_ids.tolist())) == len(tracked)
        assert (np.diff(tracked.scores) <= 0).all()
        for box, identity in zip(tracked.boxes, tracked.track_ids.tolist(), strict=True):
            assert identity > 0
            centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
            nearest = int(np.argmin(np.abs(centres - (box[:2] + box[2:]) / 2).sum(axis=1)))
            known[numbers[nearest]].append((time, identity))
    return known


def identities(seen: list[tuple[float, int]]) -> list[int]:
    """The identities that a thing had, in order, without repetition."""
    return list(dict.fromkeys(identity for _, identity in seen))
