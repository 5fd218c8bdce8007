"""The cameras of a live service that runs: others are put in their place by SIGHUP, and their results are counted.

with live_cameras("street-open", ["a.mp4"], folder) as cameras:
    cameras.show(["b.mp4"] * 16, settle_s=5.0)
    cameras.measure(30.0)           # {"results_fps": ..., "slowest_fps": ..., ...}
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perception.bench.live_browser import ask, server
from perception.common.distribution import require
from perception.errors import PerceptionError, UsageError

OPENING_S = 300.0
"""Seconds that all cameras have to open."""

_WANTED_S = 1.0
"""Each camera is asked for so often: one that nobody wants is looked at once a second only."""


class LiveCameras:
    """The cameras of a server; see `live_cameras`.

    Attributes:
        process: the server, as psutil sees it.
    """

    def __init__(self, url: str, process: Any, config: Path) -> None:
        self.process = process
        self._url = url
        self._config = config
        self._count = 1

    def show(self, uris: Sequence[str | Path], settle_s: float, decode: str = "needed") -> None:
        """Put cameras in place of those that there are, and wait until they run, and then for so long.

        Args:
            uris: an address for each; one camera may be there many times.
            settle_s: seconds in which they are looked at before this returns.
            decode: of the settings of a source.

        Raises:
            PerceptionError: one does not open.
        """
        _configure(self._config, uris, decode)
        self.process.send_signal(signal.SIGHUP)
        self._count = len(uris)
        deadline = time.monotonic() + OPENING_S
        while not self._settled():
            if time.monotonic() > deadline:
                states = [stream["state"] for stream in self.streams()]
                raise PerceptionError(f"{self._count} cameras did not open within {OPENING_S:.0f} s: {states}")
            time.sleep(_WANTED_S)
        self._look(settle_s)

    def measure(self, seconds: float) -> dict[str, float]:
        """Look at every camera for so long, and count their results.

        Returns:
            results a second of all cameras, of the slowest and of the fastest; processor cores in use, and MB of
            memory, on average.

        Raises:
            PerceptionError: a camera has ended meanwhile.
        """
        counts, cpu, began = self.counts(), sum(self.process.cpu_times()[:2]), time.monotonic()
        memory = self._look(seconds, lambda: self.process.memory_info().rss)
        elapsed = time.monotonic() - began
        after, used = self.counts(), sum(self.process.cpu_times()[:2]) - cpu
        gone = counts.keys() - after.keys()
        if gone:
            raise PerceptionError(f"cameras have ended while they were measured: {', '.join(sorted(gone))}")
        rates = [(after[name] - counts[name]) / elapsed for name in counts]
        return {
            "results_fps": sum(rates), "slowest_fps": min(rates), "fastest_fps": max(rates), "cores": used / elapsed,
            "memory_mb": memory / 1e6,
        }  # fmt: skip

    def streams(self) -> list[dict[str, Any]]:
        """The status of each camera."""
        streams: list[dict[str, Any]] = ask(self._url, "GET", "/v1/streams")[1]["streams"]
        return streams

    def counts(self) -> dict[str, int]:
        """How many results each camera has had, by its name."""
        return {stream["id"]: stream["frames"] for stream in self.streams()}

    def latency_ms(self) -> float:
        """Milliseconds from a frame's arrival to its result: the mean of all cameras' medians."""
        streams = self.streams()
        return float(sum(stream["latency_ms"]["p50"] for stream in streams)) / len(streams)

    def _settled(self) -> bool:
        streams = self.streams()
        return len(streams) == self._count and all(s["state"] == "running" and s["frames"] for s in streams)

    def _look(self, seconds: float, figure: Callable[[], float] = lambda: 0.0) -> float:
        """Look at every camera for so long; the mean of a figure meanwhile."""
        until, figures = time.monotonic() + seconds, []
        while True:
            figures.append(figure())
            for id in self.counts():
                ask(self._url, "GET", f"/v1/streams/{id}")
            left = until - time.monotonic()
            if left <= 0:
                return float(sum(figures)) / len(figures)
            time.sleep(min(left, _WANTED_S))


@contextmanager
def live_cameras(model: str, uris: Sequence[str | Path], folder: Path) -> Iterator[LiveCameras]:
    """`perception live` in a process of its own, with cameras that are always open.

    Args:
        model: name or path of the model.
        uris: an address for each camera.
        folder: for the server's files.

    Raises:
        UsageError: an optional dependency is missing, or the system has no SIGHUP.
        PerceptionError: the server does not start.
    """
    for module, extra in (("gradio", "live"), ("psutil", "dev")):
        require(module, extra, "bench cameras")
    if not hasattr(signal, "SIGHUP"):
        raise UsageError("bench cameras needs SIGHUP, which this system has not")
    config = folder / "cameras.yaml"
    _configure(config, uris, "needed")
    with server(["--config", str(config), "--model", model], folder) as (url, process):
        yield LiveCameras(url, process, config)


def _configure(path: Path, uris: Sequence[str | Path], decode: str) -> None:
    """Write a server's settings."""
    import yaml

    sources = {f"camera-{i:02d}": {"uri": str(uri), "keep": True, "decode": decode} for i, uri in enumerate(uris)}
    path.write_text(yaml.safe_dump({"sources": sources, "limits": {"share": 1}}), encoding="utf-8")
