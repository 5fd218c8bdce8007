"""How much later than its encoding a published picture is there: a clock is drawn into the picture.

Each picture shows the moment at which it was given to be published. FFmpeg, in a process of its own, receives and
decodes it, and compares with the clock then; both processes have the same one. What is left when encoding is taken off
are the queues, the muxer, the protocol on this machine, and the receiver's decoder.

``python -m perception.bench.publishing URL OPTION=VALUE ...`` is the receiver.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import av
import numpy as np

from perception.common.programs import program
from perception.errors import PerceptionError
from perception.picture.conversions import to_bgr
from perception.sinks.publish import PublishSink
from perception.sources import open_source
from perception.types import U8, Frame, Prediction, SourceInfo

FPS = 30
SETTLE_S = 2.0
"""What comes in the first seconds, while a receiver catches up, does not count."""

_BITS = 40
_ROWS = 32
_OPTIONS = {
    "rtsp": ["rtsp_flags=listen", "listen_timeout=120"],
    "rtmp": ["listen=1"],
    "udp": ["fflags=nobuffer"],
}
_AT_ONCE = ["fpsprobesize=0", "analyzeduration=100000"]
_CONNECTING_S = 30.0


def publish_rows(clip: Path, seconds: float) -> list[dict[str, Any]]:
    """Measure each protocol that FFmpeg can receive by itself.

    Args:
        clip: the pictures, again and again.
        seconds: how long each is measured.

    Returns:
        a row for each: frames that came, milliseconds to encode one, and milliseconds from then to its picture at the
        receiver: the median, and the 95th percentile.

    Raises:
        PerceptionError: nothing arrives.
    """
    with open_source(str(clip), max_frames=120) as source:
        pictures = [to_bgr(frame.picture).copy() for frame in source]
    return [_row(kind, pictures, seconds) for kind in _OPTIONS]


def _row(kind: str, pictures: list[U8], seconds: float) -> dict[str, Any]:
    url = f"{kind}://127.0.0.1:{_free_port(kind)}" + ("" if kind == "udp" else "/live/bench")
    command = [*program("perception.bench.publishing"), url, *_OPTIONS[kind], *_AT_ONCE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()  # it is there
        came: list[tuple[float, float]] = []
        reading = threading.Thread(target=_read, args=(receiver.stdout, came), daemon=True)
        reading.start()
        try:
            encode_ms = _publish(url, pictures, seconds, came)
        finally:
            receiver.kill()
            reading.join()
    if len(came) < 2:
        raise PerceptionError("nothing that was published has arrived", url)
    late = [1000 * (arrived - shown) for shown, arrived in came if shown - came[0][0] > SETTLE_S] or [0.0, 0.0]
    usual = median(encode_ms)
    return {
        "target": kind, "frames": len(late), "encode_ms": round(usual, 1), "added_ms": round(median(late) - usual, 1),
        "added_ms_p95": round(quantiles(late, n=20)[-1] - usual, 1),
    }  # fmt: skip


def _publish(url: str, pictures: list[U8], seconds: float, came: list[tuple[float, float]]) -> list[float]:
    """Publish pictures in real time for so long after the first has come; return how long each took to encode."""
    height, width = pictures[0].shape[:2]
    sink = PublishSink(url)
    sink.open(SourceInfo("bench", "stream", width, height, fps=Fraction(FPS), live=True))
    began, encode_ms, until = time.monotonic(), [], None
    try:
        for number, picture in enumerate(itertools.cycle(pictures)):
            time.sleep(max(0.0, began + number / FPS - time.monotonic()))
            now = time.monotonic()
            if until is None and came:
                until = now + SETTLE_S + seconds
            if now > (until or began + _CONNECTING_S):
                break
            drawn = with_clock(picture, now)
            frame = Frame(drawn, index=number, time=number / FPS, source="bench")
            started = time.monotonic()
            sink.write(Prediction(frame, picture=drawn))
            encode_ms.append(1000 * (time.monotonic() - started))
    finally:
        sink.abort()
    return encode_ms


def with_clock(picture: U8, seconds: float) -> U8:
    """Return a picture with a time drawn into it, as bits in a bar at its top: the lowest one left, white for 1."""
    drawn = picture.copy()
    bits = int(seconds * 1e6) >> np.arange(_BITS) & 1
    columns = np.minimum(np.arange(picture.shape[1]) * _BITS // picture.shape[1], _BITS - 1)
    drawn[:_ROWS] = np.where(bits[columns], 235, 16).astype(np.uint8)[None, :, None]
    return drawn


def read_clock(luma: U8) -> float:
    """Return the time in seconds that is drawn into a picture of which this is the luma, or a gray picture."""
    centres = ((np.arange(_BITS) + 0.5) * luma.shape[1] / _BITS).astype(int)
    bits = luma[_ROWS // 4 : _ROWS - _ROWS // 4, centres].mean(axis=0) > 125
    return float(sum(1 << i for i, bit in enumerate(bits.tolist()) if bit)) / 1e6


def _read(lines: Any, came: list[tuple[float, float]]) -> None:
    for line in lines:
        with contextlib.suppress(ValueError):  # the last one, cut by its end
            shown, arrived = json.loads(line)
            came.append((shown, arrived))


def _free_port(kind: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def main() -> None:
    """Receive, and print for each picture the time that it shows and the time at which it was there."""
    url, *options = sys.argv[1:]
    print("listening", flush=True)
    container = av.open(url, options=dict(option.split("=", 1) for option in options))
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= av.codec.context.Flags.low_delay
    for frame in container.decode(stream):
        arrived = time.monotonic()
        luma = np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(frame.height, -1)[:, : frame.width]
        print(json.dumps([read_clock(luma), arrived]), flush=True)


if __name__ == "__main__":
    main()
