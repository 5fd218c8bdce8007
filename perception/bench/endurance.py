"""Many cameras for long: whether memory, threads and descriptors stay, and each camera gets as much as the others.

As in `perception.bench.cameras.rtsp_rows` they send by RTSP from this machine, 25 frames a second each, of which those
are decoded that are needed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from perception.bench.cameras import GOP_S, RTSP_FPS, RTSP_FRAMES, RTSP_SETTLE_S, mean, ratios, rounded
from perception.bench.live_browser import SETTLE_S
from perception.bench.live_cameras import live_cameras
from perception.bench.rtsp_camera import encoded, rtsp_camera, served

PARTS = 6
"""So many rows, each of a part of the time."""

ONE_S = 60.0
"""How long one camera alone is measured at most, before and after."""


def endurance_rows(model: str, clip: Path, cameras: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Measure many cameras for long, and one before and after them.

    Args:
        model: name or path of the model.
        clip: what each camera shows, encoded anew with a key frame each `GOP_S`.
        cameras: how many, 2 at least.
        seconds: how long they are measured.
        folder: for the server's files.

    Returns:
        a row for one camera; one for each sixth of the time, with the minutes that have passed, and memory in MB,
        threads and descriptors at its end; and one for the whole time, with what has been added since the end of the
        first sixth, how often cameras have connected again, and a comparison with one camera, see
        `perception.bench.cameras.camera_rows`.

    Raises:
        UsageError, PerceptionError: see `perception.bench.cameras.camera_rows`.
    """
    units = encoded(clip, RTSP_FPS, GOP_S, RTSP_FRAMES)
    with served(rtsp_camera(units, fps=RTSP_FPS)) as address, live_cameras(model, [address], folder) as live:

        def alone() -> dict[str, float]:
            live.show([address], SETTLE_S)
            return live.measure(min(seconds, ONE_S))

        before = alone()
        live.show([address] * cameras, RTSP_SETTLE_S)
        counts, began = live.counts(), time.monotonic()
        rows: list[dict[str, Any]] = []
        for _ in range(PARTS):
            figures = live.measure(seconds / PARTS) | {
                "latency_ms": live.latency_ms(),
                "memory_mb": live.process.memory_info().rss / 1e6,
            }
            passed = time.monotonic() - began
            fairness = figures["fastest_fps"] / max(figures["slowest_fps"], 1e-3)
            rows.append(
                {"cameras": cameras, "minutes": f"{passed / 60:.1f}"} | rounded(figures)
                | {"fastest_to_slowest": round(fairness, 3), "threads": live.process.num_threads(),
                   "descriptors": live.process.num_fds()}
            )  # fmt: skip
        streams, passed = live.streams(), time.monotonic() - began
        rates = [(stream["frames"] - counts[stream["id"]]) / passed for stream in streams]
        whole = {
            "results_fps": sum(rates), "slowest_fps": min(rates), "fastest_fps": max(rates),
            "memory_mb": live.process.memory_info().rss / 1e6,
        }  # fmt: skip
        added = {
            f"{name}_added": round(rows[-1][name] - rows[0][name], 1)
            for name in ("memory_mb", "threads", "descriptors")
        }
        one = mean(before, alone())
    return [
        {"cameras": 1} | rounded(one),
        *rows,
        {"cameras": cameras, "minutes": "all"} | rounded(whole) | ratios(whole, one, cameras) | added
        | {"reconnects": sum(stream["reconnects"] for stream in streams)},
    ]  # fmt: skip
