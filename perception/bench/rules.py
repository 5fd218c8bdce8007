"""What rules cost a frame, next to the plain way to ask the same: point by point, in Python with OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from perception.rules.settings import Rules, make_rules
from perception.rules.tracks import TracksAtRules
from perception.types import Detections

TRACKS, LINES, ZONES, FRAMES = 35, 6, 4, 300
WIDTH, HEIGHT = 1280, 720


def rules_rows(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds a frame, medians, at 35 tracks and 10 rules; both take turns on the same frames.

    The plain way asks only on which side each box is and whether it is inside: no hysteresis, no times, no parking.
    """
    rules = _rules()
    ours: list[float] = []
    plain: list[float] = []
    for repeat in range(max(repeats // 10, 1)):
        tracks = TracksAtRules(rules.lines, rules.zones, ["car"])
        last: dict[int, tuple[float, float]] = {}
        for k, found in enumerate(_frames(repeat)):
            started = time.perf_counter()
            tracks.update(found, k / 30, 1 / 30, WIDTH, HEIGHT)
            between = time.perf_counter()
            last = _plain(rules, found, last)
            ours.append(between - started)
            plain.append(time.perf_counter() - between)
    ms = {"lines and zones": 1e3 * float(np.median(ours)), "plain": 1e3 * float(np.median(plain))}
    rows: list[dict[str, Any]] = [{"what": what, "ms": round(value, 4)} for what, value in ms.items()]
    rows[0]["times as fast"] = round(ms["plain"] / ms["lines and zones"], 1)
    return rows


def _rules() -> Rules:
    lines = [{"name": f"line {i}", "points": [[0.05 + 0.15 * i, 0], [0.1 + 0.15 * i, 1]]} for i in range(LINES)]
    corners = [[0.0, 0.2], [0.15, 0.2], [0.2, 0.5], [0.15, 0.8], [0.0, 0.7]]
    zones = [
        {"name": f"zone {i}", "points": [[x + 0.2 * i, y] for x, y in corners], "loitering_s": 5, "parked_s": 5}
        for i in range(ZONES)
    ]
    return make_rules({"lines": lines, "zones": zones})


def _frames(seed: int) -> Iterator[Detections]:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, WIDTH - 80, TRACKS), rng.uniform(0, HEIGHT - 100, TRACKS)
    speed = rng.uniform(-160, 160, TRACKS)
    ids, scores = np.arange(1, TRACKS + 1), np.full(TRACKS, 0.9, np.float32)
    for _ in range(FRAMES):
        x = x + speed / 30
        speed = np.where(x < 0, abs(speed), np.where(x > WIDTH - 80, -abs(speed), speed))
        boxes = np.stack([x, y, x + 80, y + 100], axis=1).astype(np.float32)
        yield Detections(boxes, scores, np.zeros(TRACKS, np.int32), ids)


def _plain(rules: Rules, found: Detections, last: dict[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    assert found.track_ids is not None
    shapes = [np.array(zone.points, np.float32) for zone in rules.zones]
    places: dict[int, tuple[float, float]] = {}
    crossed = inside = 0
    for track, (x0, _, x1, y1) in zip(found.track_ids.tolist(), found.boxes.tolist(), strict=True):
        x, y = 0.5 * (x0 + x1) / WIDTH, y1 / HEIGHT
        places[track] = (x, y)
        px, py = last.get(track, (x, y))
        for line in rules.lines:
            (ax, ay), (bx, by) = line.points
            was = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
            now = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
            crossed += (was >= 0) != (now >= 0)
        inside += sum(cv2.pointPolygonTest(shape, (x, y), False) >= 0 for shape in shapes)
    assert crossed + inside >= 0
    return places
