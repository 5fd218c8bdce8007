"""A network camera behind a wire that loses packets, takes its time, and is cut."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.faults.annotation import ROOT
from tests.faults.row import NotHere, Outcome, Work
from tests.faults.wire import Wire
from tests.media import make_video
from tests.models import write_model
from tests.server.rtsp_process import NEEDS, RtspProcess, missing

FRAMES = 1000
"""Numbers that frames show before they begin again; one connection must not see more."""


class Watched:
    """`tests.faults.watch` in the network of one end."""

    def __init__(self, wire: Wire, model: Path, url: str) -> None:
        command = [*wire.prefix(1), sys.executable, "-m", "tests.faults.watch", str(model), url]
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def frames(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Those that came after a moment."""
        return [line for line in [*self.lines] if "shown" in line and line["at"] >= since]

    def wait(self, since: float, seconds: float = 90.0) -> float:
        """The moment of the first frame after another moment."""
        until = time.monotonic() + seconds
        while not (found := self.frames(since)):
            states = [line for line in self.lines if "state" in line][-1:]
            assert self._process.poll() is None, "the watcher ended"
            assert time.monotonic() < until, f"no picture in {seconds:g} s: {states}"
            time.sleep(0.05)
        return float(found[0]["at"])

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
        self._thread.join(10)
        self._process.stdout.close()


def run(work: Work) -> Outcome:
    """Watch for ``count`` seconds under each condition, all on a connection of its own."""
    problem = missing()
    if problem:
        raise NotHere(f"no RTSP server ({problem}); {NEEDS}")
    seconds = float(min(work.count, FRAMES // 25 - 15))
    outcome = Outcome()
    model = write_model(work.folder / "m.onnx", classes=["white", "black"])
    video = make_video(work.folder / "v.mp4", frames=FRAMES, fps=25, keyint=25, size_wh=(320, 192))
    with Wire(work.seed) as wire:
        camera = RtspProcess(video, wire.prefix(0), wire.address(0))
        camera.start()
        url = f"rtsp://{wire.address(0)}:{camera.port}/live"
        try:
            for name, how in (
                ("quiet", {}),
                ("1 % lost", {"loss": 0.01}),
                ("5 % lost", {"loss": 0.05}),
                ("100 to 150 ms late", {"delay_s": 0.1, "jitter_s": 0.05}),
                ("2 % lost, 50 to 150 ms late", {"loss": 0.02, "delay_s": 0.05, "jitter_s": 0.1}),
            ):
                with outcome.trial(name):
                    outcome.figures[name] = _steady(wire, model, url, seconds, how)
            for cut_s in (2.0, 20.0):
                name = f"cut for {cut_s:g} s"
                with outcome.trial(name):
                    outcome.figures[name] = _cut(wire, model, url, cut_s)
        finally:
            camera.end()
        outcome.figures["packets"] = f"{wire.counts['carried']} carried, {wire.counts['lost']} lost"
    return outcome


def _steady(wire: Wire, model: Path, url: str, seconds: float, how: dict[str, float]) -> str:
    wire.set(**how)  # type: ignore[arg-type]
    watched = Watched(wire, model, url)
    try:
        began = watched.wait(0.0)
        time.sleep(seconds)
        frames = watched.frames(began)
    finally:
        watched.end()
        wire.set()
    states = [line["state"] for line in watched.lines if "state" in line and line["at"] >= began]
    _in_order(frames)
    assert "failed" not in states, states
    span = frames[-1]["shown"] - frames[0]["shown"] + 1
    gap = max((b["at"] - a["at"] for a, b in pairwise(frames)), default=0.0)
    assert len(frames) > 5, f"{len(frames)} frames in {seconds:g} s"
    text = f"{len(frames)} of {span} frames shown, longest pause {gap:.1f} s"
    return text + (f", {states.count('reconnecting')} reconnects" if "reconnecting" in states else "")


def _cut(wire: Wire, model: Path, url: str, cut_s: float) -> str:
    watched = Watched(wire, model, url)
    try:
        watched.wait(0.0)
        time.sleep(3)
        wire.set(cut=True)
        time.sleep(cut_s)
        wire.set()
        mended = time.monotonic()
        recovered = watched.wait(mended) - mended
        time.sleep(3)
        frames = watched.frames()
    finally:
        watched.end()
        wire.set()
    states = [line["state"] for line in watched.lines if "state" in line]
    assert "failed" not in states, states
    _in_order(frames)
    if cut_s > 10:
        assert "reconnecting" in states, f"it was not given up: {states}"
    return f"a picture {recovered:.1f} s after"


def _in_order(frames: list[dict[str, Any]]) -> None:
    for a, b in pairwise(frames):
        assert b["time"] > a["time"] and b["index"] > a["index"], f"out of order: {a}, {b}"
