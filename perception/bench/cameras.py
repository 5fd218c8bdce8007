"""Many cameras on one engine: what they get together, whether each gets as much, and what a further one costs.

The cameras are files that `perception live` plays as if they were live, in a process of its own. One camera or many,
they give as many frames a second together, half as many again as the engine can do, so that what is compared is the
number of cameras and nothing else: as much is decoded. The server begins with one, gets many in its place by SIGHUP,
and gets the one back, which is so measured before and after them.
"""

from __future__ import annotations

import signal
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from perception.bench.live_browser import SETTLE_S, ask, server
from perception.common.distribution import require
from perception.errors import PerceptionError, UsageError

OPENING_S = 120.0
"""Seconds that all cameras have to open."""

FLOOD_FPS = 120
"""Frames a second of the camera that shows what the engine can do."""

OFFERED = 1.5
"""Times as many frames a second are offered as the engine can do."""

_WANTED_S = 1.0
"""Each camera is asked for so often: one that nobody wants is looked at once a second only."""


def camera_rows(model: str, clip: Path, cameras: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Measure one camera, many, and one again.

    Args:
        model: name or path of the model.
        clip: what each camera shows.
        cameras: how many, 2 at least.
        seconds: how long each is measured.
        folder: for the server's files.

    Returns:
        a row for one camera and for many: results a second, all together and of the slowest and the fastest camera,
        processor cores in use, and MB of memory; of the many also the ratios, and MB of memory for each further camera.

    Raises:
        UsageError: an optional dependency is missing, or the system has no SIGHUP.
        PerceptionError: the server does not start, or a camera does not open.
    """
    for module, extra in (("gradio", "live"), ("psutil", "dev")):
        require(module, extra, "bench cameras")
    if not hasattr(signal, "SIGHUP"):
        raise UsageError("bench cameras needs SIGHUP, which this system has not")
    config = folder / "cameras.yaml"
    flood, fast, slow = (folder / f"{name}.mp4" for name in ("flood", "fast", "slow"))
    _play_at(FLOOD_FPS, clip, flood)
    _configure(config, flood, 1)
    with server(["--config", str(config), "--model", model], folder) as (url, process):

        def measure(clip: Path, cameras: int, seconds: float = seconds) -> dict[str, float]:
            _configure(config, clip, cameras)
            process.send_signal(signal.SIGHUP)
            return _measure(url, process, cameras, seconds)

        offered = OFFERED * measure(flood, 1, seconds / 3)["results_fps"]
        _play_at(offered, clip, fast)
        _play_at(offered / cameras, clip, slow)
        before = measure(fast, 1)
        many = measure(slow, cameras)
        after = measure(fast, 1)
    one = {name: (before[name] + after[name]) / 2 for name in before} | {"memory_mb": before["memory_mb"]}
    further = (many["memory_mb"] - one["memory_mb"]) / (cameras - 1)
    ratios = {
        "of_one_camera": round(many["results_fps"] / one["results_fps"], 3),
        "fastest_to_slowest": round(many["fastest_fps"] / max(many["slowest_fps"], 1e-3), 3),
        "mb_each_further": round(further, 1),
    }
    return [{"cameras": 1} | _rounded(one), {"cameras": cameras} | _rounded(many) | ratios]


def _play_at(fps: float, clip: Path, path: Path) -> None:
    """Write a clip at another frame rate: the same pictures, the same data."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        rate = source.streams.video[0].average_rate or 25
        stream.time_base = Fraction(1, 90_000)
        for packet in source.demux(video=0):
            if packet.dts is None or packet.pts is None or not packet.time_base:
                continue
            scale = float(packet.time_base * 90_000 * rate) / fps
            packet.pts, packet.dts, packet.duration = (
                round(value * scale) for value in (packet.pts, packet.dts, packet.duration or 0)
            )
            packet.time_base, packet.stream = stream.time_base, stream
            out.mux(packet)


def _configure(path: Path, clip: Path, cameras: int) -> None:
    """Write a server's settings: cameras that are always open."""
    import yaml

    sources = {f"camera-{i:02d}": {"uri": str(clip.absolute()), "keep": True} for i in range(cameras)}
    path.write_text(yaml.safe_dump({"sources": sources, "limits": {"share": 1}}), encoding="utf-8")


def _measure(url: str, process: Any, cameras: int, seconds: float) -> dict[str, float]:
    """Wait until so many cameras run and no others, then count their results."""
    deadline = time.monotonic() + OPENING_S
    while not _settled(url, cameras):
        if time.monotonic() > deadline:
            states = [stream["state"] for stream in ask(url, "GET", "/v1/streams")[1]["streams"]]
            raise PerceptionError(f"{cameras} cameras did not open within {OPENING_S:.0f} s: {states}")
        time.sleep(_WANTED_S)
    _want(url, SETTLE_S)
    counts, cpu, began = _counts(url), sum(process.cpu_times()[:2]), time.monotonic()
    memory = _want(url, seconds, lambda: process.memory_info().rss)
    elapsed = time.monotonic() - began
    after, used = _counts(url), sum(process.cpu_times()[:2]) - cpu
    rates = [(after[name] - counts[name]) / elapsed for name in counts]
    return {
        "results_fps": sum(rates), "slowest_fps": min(rates), "fastest_fps": max(rates), "cores": used / elapsed,
        "memory_mb": memory / 1e6,
    }  # fmt: skip


def _settled(url: str, cameras: int) -> bool:
    streams = ask(url, "GET", "/v1/streams")[1]["streams"]
    return len(streams) == cameras and all(s["state"] == "running" and s["frames"] for s in streams)


def _want(url: str, seconds: float, figure: Any = lambda: 0.0) -> float:
    """Look at every camera for so long; the mean of a figure meanwhile."""
    until, figures = time.monotonic() + seconds, []
    while True:
        figures.append(figure())
        for id in _counts(url):
            ask(url, "GET", f"/v1/streams/{id}")
        left = until - time.monotonic()
        if left <= 0:
            return float(sum(figures)) / len(figures)
        time.sleep(min(left, _WANTED_S))


def _counts(url: str) -> dict[str, int]:
    return {stream["id"]: stream["frames"] for stream in ask(url, "GET", "/v1/streams")[1]["streams"]}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2 if value < 100 else 1) for name, value in figures.items()}
