"""Ten million frames of things that come and go, through one tracker whose memory must stay flat.

    python -m tests.tracking.churn [FRAMES]

Prints the process's resident memory after the first ten thousand frames and at ten further points, and fails where it
grew. `make churn` runs it; it takes most of an hour.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import psutil

from perception.tracking.tracker import Tracker
from perception.types import Detections

FRAMES = 10_000_000
WALKERS, FLICKERS = 4, 1
LIFE = 40
"""Frames that a walker is seen for, but for a gap in the middle; then another one begins somewhere else."""
WARM = 10_000
ALLOWED = 2_000_000
"""Bytes by which the process may grow after `WARM` frames: what an allocator's rounding can do, and no list."""


def frames(count: int, seed: int = 0, block: int = 4_000) -> Iterator[Detections]:
    """Boxes that walk for a while, with a gap, and boxes that flicker in a frame of their own, at 30 fps."""
    rng = np.random.default_rng(seed)
    scores = np.linspace(0.95, 0.85, WALKERS + FLICKERS).astype(np.float32)
    class_ids = np.arange(WALKERS + FLICKERS, dtype=np.int32) % 3
    offsets = np.arange(WALKERS) * LIFE // WALKERS  # so that they do not all change at once
    for first in range(0, count, block):
        index = np.arange(first, min(first + block, count))
        age = (index[:, None] + offsets) % LIFE
        life = (index[:, None] + offsets) // LIFE - (first + offsets) // LIFE
        lives = int(life.max()) + 1
        start, speed = rng.uniform(0, 1800, (lives, WALKERS, 2)), rng.uniform(-4, 4, (lives, WALKERS, 2))
        who = np.arange(WALKERS)
        corners = np.empty((len(index), WALKERS + FLICKERS, 2))
        corners[:, :WALKERS] = start[life, who] + age[..., None] * speed[life, who]
        corners[:, WALKERS:] = rng.uniform(0, 1800, (len(index), FLICKERS, 2))
        boxes = np.concatenate([corners, corners + 60], axis=2).astype(np.float32)
        seen = np.ones((len(index), WALKERS + FLICKERS), bool)
        seen[:, :WALKERS] = (age < LIFE // 2) | (age >= LIFE // 2 + 5)
        for one, there in zip(boxes, seen, strict=True):
            yield Detections(one[there], scores[there], class_ids[there])


def main(count: int = FRAMES) -> int:
    """Run it; 1 where the memory grew."""
    tracker, process = Tracker(classes=3), psutil.Process()
    marks = {WARM, *np.linspace(0, count, 11).astype(int)[1:].tolist()}
    given, at_first, began = 0, 0, time.monotonic()
    print(f"{'frames':>12} {'identities':>12} {'resident MB':>12} {'us a frame':>11}")
    for index, found in enumerate(frames(count), 1):
        tracked = tracker.update(found, index / 30, (1920, 1920))
        if tracked.track_ids is not None and len(tracked):
            given = max(given, int(tracked.track_ids.max()))
        if index % 100 == 0:
            assert len(tracker.trails) == len(tracked)
        if index in marks:
            memory = process.memory_info().rss
            at_first = at_first or memory
            spent = 1e6 * (time.monotonic() - began) / index
            print(f"{index:12,d} {given:12,d} {memory / 1e6:12.2f} {spent:11.1f}", flush=True)
    grown = process.memory_info().rss - at_first
    print(f"{given:,d} identities; the memory grew by {grown / 1e6:.2f} MB of {ALLOWED / 1e6:.0f} that are allowed")
    return int(grown > ALLOWED)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
