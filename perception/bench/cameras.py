"""Many cameras on one engine: what they get together, whether each gets as much, and what a further one costs.

The cameras are files that `perception live` plays as if they were live, in a process of its own. One camera or many,
they give as many frames a second together, half as many again as the engine can do, so that what is compared is the
number of cameras and nothing else: as much is decoded. The server begins with one, gets many in its place by SIGHUP,
and gets the one back, which is so measured before and after them.

Or the cameras send 25 frames a second each by RTSP, as real ones do. Then many send more than the engine has time for,
and decoding all of it would take the time that the network needs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from perception.bench.live_browser import SETTLE_S
from perception.bench.live_cameras import live_cameras
from perception.bench.rtsp_camera import encoded, rtsp_camera, served

FLOOD_FPS = 120
"""Frames a second of the camera that shows what the engine can do."""

OFFERED = 1.5
"""Times as many frames a second are offered as the engine can do."""

HALF = 0.5
"""Part of the frames a second that the engine can do which the most cameras give together, where growth is measured."""

RTSP_FPS = 25
GOP_S = 2.0
"""Seconds from one key frame to the next, as cameras are set when they come."""

RTSP_FRAMES = 250
RTSP_SETTLE_S = 35.0
"""Time to settle before many cameras are measured that send more than the engine has time for."""


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
    flood, fast, slow = (folder / f"{name}.mp4" for name in ("flood", "fast", "slow"))
    _play_at(FLOOD_FPS, clip, flood)
    with live_cameras(model, [flood], folder) as live:

        def measure(clip: Path, cameras: int, seconds: float = seconds) -> dict[str, float]:
            live.show([clip] * cameras, SETTLE_S)
            return live.measure(seconds)

        offered = OFFERED * measure(flood, 1, seconds / 3)["results_fps"]
        _play_at(offered, clip, fast)
        _play_at(offered / cameras, clip, slow)
        before = measure(fast, 1)
        many = measure(slow, cameras)
        after = measure(fast, 1)
    one = mean(before, after)
    return [{"cameras": 1} | rounded(one), {"cameras": cameras} | rounded(many) | ratios(many, one, cameras)]


def growth_rows(model: str, clip: Path, counts: Sequence[int], seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Measure what cameras cost that give the same number of frames each, by how many there are.

    Args:
        model, clip, seconds, folder: as of `camera_rows`.
        counts: of cameras, ascending. The engine has time for the frames of all of the most.

    Returns:
        a row for each number: ``axis``, ``value``, ``core_ms`` of a second, ``memory_mib``.

    Raises:
        UsageError, PerceptionError: see `camera_rows`.
    """
    flood, slow = folder / "flood.mp4", folder / "slow.mp4"
    _play_at(FLOOD_FPS, clip, flood)
    rows = []
    with live_cameras(model, [flood], folder) as live:
        live.show([flood], SETTLE_S)
        _play_at(HALF * live.measure(seconds)["results_fps"] / counts[-1], clip, slow)
        for count in counts:
            live.show([slow] * count, SETTLE_S)
            figures = live.measure(seconds)
            costs = {"core_ms": 1e3 * figures["cores"], "memory_mib": figures["memory_mb"] * 1e6 / 2**20}
            rows.append({"axis": "cameras, a second", "value": count} | rounded(costs))
    return rows


def rtsp_rows(model: str, clip: Path, cameras: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Measure one camera that sends `RTSP_FPS` frames a second, many of which all is decoded, many, and one again.

    Args:
        model: name or path of the model.
        clip: what each camera shows, encoded anew with a key frame each `GOP_S`.
        cameras: how many, 2 at least.
        seconds: how long each is measured.
        folder: for the server's files.

    Returns:
        rows as of `camera_rows`; and milliseconds from a frame's arrival to its result (the median), how many processor
        cores the cameras themselves take, which send from this process, which part of the frames is decoded, and how
        many of the server's cores that takes, by what a frame takes alone.

    Raises:
        UsageError, PerceptionError: see `camera_rows`.
    """
    sent = folder / "sent.h264"
    units = encoded(clip, RTSP_FPS, GOP_S, RTSP_FRAMES)
    sent.write_bytes(b"".join(b"\0\0\0\1" + unit for frame in units for unit in frame))
    decode_s = _decode_s(sent)
    with served(rtsp_camera(units, fps=RTSP_FPS)) as address, live_cameras(model, [address], folder) as live:
        import psutil

        sender = psutil.Process()

        def measure(cameras: int, decode: str, settle_s: float = SETTLE_S) -> dict[str, float]:
            live.show([address] * cameras, settle_s, decode)
            before, began = sum(sender.cpu_times()[:2]), time.monotonic()
            row = live.measure(seconds)
            streams = live.streams()
            part = sum(stream["decoded"] for stream in streams) / len(streams)
            return row | {
                "latency_ms": live.latency_ms(),
                "camera_cores": (sum(sender.cpu_times()[:2]) - before) / (time.monotonic() - began),
                "decoded": part,
                "decode_cores": part * cameras * RTSP_FPS * decode_s,
            }

        before = measure(1, "needed")
        rows = [(decode, measure(cameras, decode, RTSP_SETTLE_S)) for decode in ("all", "needed")]
        one = mean(before, measure(1, "needed"))
    return [
        {"cameras": 1, "decode": "needed"} | rounded(one),
        *({"cameras": cameras, "decode": decode} | rounded(many) | ratios(many, one, cameras) for decode, many in rows),
    ]


def mean(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The figures of a camera that was measured twice; its memory counts before there were more."""
    return {name: (before[name] + after[name]) / 2 for name in before} | {"memory_mb": before["memory_mb"]}


def ratios(many: dict[str, float], one: dict[str, float], cameras: int) -> dict[str, float]:
    """Compare many cameras with one, and the fastest of them with the slowest."""
    further = (many["memory_mb"] - one["memory_mb"]) / (cameras - 1)
    return {
        "of_one_camera": round(many["results_fps"] / one["results_fps"], 3),
        "fastest_to_slowest": round(many["fastest_fps"] / max(many["slowest_fps"], 1e-3), 3),
        "mb_each_further": round(further, 1),
    }


def _decode_s(path: Path) -> float:
    """Seconds of a core that it takes to decode a frame of a file, on average."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        began = time.thread_time()
        count = sum(1 for _ in container.decode(video=0))
        return (time.thread_time() - began) / count


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


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Figures as a table shows them."""
    return {name: round(value, 2 if value < 100 else 1) for name, value in figures.items()}
