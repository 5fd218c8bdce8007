"""A day of a camera that fails now and then, with viewers and recordings, in as many minutes as there are."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil

from perception import load_model, open_source
from perception.common.files import file_size
from perception.errors import SourceError
from perception.server.inference.scheduler import Scheduler
from perception.server.memory import give_back
from perception.server.options import Options
from perception.server.settings import Limits
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from perception.server.viewers.broadcast import Broadcast
from perception.server.viewers.fragmented_mp4 import FragmentedMp4Sink, Segment
from perception.server.viewers.motion_jpeg import MotionJpegSink
from perception.server.viewers.recording import Recordings
from perception.sources.base import Source
from perception.types import Frame
from tests.faults.outputs import times_of
from tests.faults.row import Outcome, Work, spread
from tests.models import write_model

DAY_S = 86400.0
LATE_S = 10.0
"""Of this machine, by which a frame may come late: a busy one makes long waits of a fast clock."""

FAILURE_S = 1800.0
HOUR_S = 3600.0
SCENE = "synthetic:?size=160x96&fps=25&frames=0&live=1"
GROWTH_BYTES = 40e6


class FastClock:
    """Seconds of a day that is over sooner."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.began = time.monotonic()

    def __call__(self) -> float:
        return self.began + (time.monotonic() - self.began) * self.rate


class FastCamera(Source):
    """A live scene whose own clock is a fast one, and which fails after a while."""

    def __init__(self, clock: FastClock) -> None:
        super().__init__()
        self._clock = clock
        self._scene = open_source(SCENE)
        self.info = self._scene.info

    @property
    def dropped(self) -> int:
        return self._scene.dropped

    def _read(self) -> Iterator[Frame]:
        began = self._clock()
        for frame in self._scene:
            now = self._clock()
            if now - began > FAILURE_S:
                raise SourceError("the camera fails", self.info.uri)
            yield frame.at(time=now - began, arrived=now)

    def _interrupt(self) -> None:
        self._scene.close()

    def _release(self) -> None:
        self._scene.close()


def run(work: Work) -> Outcome:
    """A day in ``count`` seconds."""
    outcome = Outcome(times=1)
    clock = FastClock(DAY_S / work.count)
    rate = clock.rate
    usual = Timeouts()
    timeouts = Timeouts(
        stall=usual.stall * rate, silence=usual.silence * rate, opening=usual.opening * rate, age=usual.age * rate,
        first_pause=0.05, longest_pause=0.2, settled=HOUR_S / 10,
    )  # fmt: skip
    segments: list[Segment] = []
    counts = {"video": 0, "mjpeg": 0}
    model_path = write_model(work.folder / "m.onnx", classes=8, detection=True)
    folder = work.folder / "recordings"
    lengths: list[float] = []
    with ExitStack() as stack:
        model = stack.enter_context(load_model(model_path, precision="fp32"))
        scheduler = stack.enter_context(Scheduler(model))
        stream = Stream("day", "day", lambda: FastCamera(clock), scheduler, timeouts=timeouts, clock=clock)
        stack.callback(stream.close)
        recordings = Recordings(folder, Limits(job_ttl_s=2 * HOUR_S, upload_seconds=2 * HOUR_S), clock)
        stack.callback(recordings.close)
        over = threading.Event()
        viewers = threading.Thread(target=lambda: asyncio.run(_watch(stream, over, segments, counts)))
        viewers.start()
        stack.callback(viewers.join)
        stack.callback(over.set)
        held: list[tuple[int, int, int, int]] = []
        while not segments:
            time.sleep(0.01)
        began = clock()
        for hour in range(24):
            at = clock()
            recording = recordings.start(stream, Options(opacity=0.5))
            while clock() - began < HOUR_S * (hour + 1):
                time.sleep(0.01)
            recording.stop()
            took = clock() - at
            if outcome.check(recording.state == "finished", f"recording {hour}: {recording.message}"):
                times = times_of(recording.path)
                lengths.append(times[-1])
                outcome.check(times == sorted(times), f"recording {hour}: times go back")
                outcome.check(times[-1] < took + LATE_S * rate, f"recording {hour}: {times[-1]:.0f} s in {took:.0f} s")
            recordings.delete_old()
            give_back()
            held.append(_held(folder))
            outcome.check(not stream.over, f"hour {hour}: the stream has {stream.state}")
        status = stream.status()
    last = _time_of(segments[-1])
    outcome.check(abs(last - DAY_S) < 2 * HOUR_S, f"the last picture is at {last:.0f} s of the day")
    outcome.check(sum(lengths) > DAY_S / 2, f"recordings of {lengths}")
    outcome.check(status["reconnects"] >= 24, f"{status['reconnects']} reconnects")
    early, late = held[3], held[-1]
    outcome.check(late[0] < early[0] + GROWTH_BYTES, f"memory: {held}")
    outcome.check(late[1] <= early[1] + 2 and late[2] <= early[2] + 2, f"threads, descriptors: {held}")
    outcome.check(max(files for *_, files in held) <= 4, f"files: {held}")
    outcome.figures["a day in"] = f"{work.count} s"
    outcome.figures["frames"] = str(status["frames"])
    outcome.figures["reconnects"] = str(status["reconnects"])
    outcome.figures["recordings"] = spread([length / HOUR_S for length in lengths], "h", 2)
    outcome.figures["viewers got"] = f"{counts['video']} segments, {counts['mjpeg']} JPEG"
    outcome.figures["memory after 4 and 24 hours"] = f"{file_size(early[0])}, {file_size(late[0])}"
    outcome.figures["threads"] = f"{early[1]}, {late[1]}"
    outcome.figures["descriptors"] = f"{early[2]}, {late[2]}"
    return outcome


async def _watch(stream: Stream, over: threading.Event, segments: list[Segment], counts: dict[str, int]) -> None:
    """Two viewers, who leave and come again every few seconds."""
    while not over.is_set():
        video = Broadcast.join(stream, Options(opacity=0.3), FragmentedMp4Sink)
        mjpeg = Broadcast.join(stream, Options(), MotionJpegSink)
        until = time.monotonic() + 3
        while time.monotonic() < until and not over.is_set():
            segment = await video.next(0.1)
            if segment is not None:
                counts["video"] += 1
                segments[:] = [segment]
            counts["mjpeg"] += await mjpeg.next(0.1) is not None
        video.leave()
        mjpeg.leave()


def _time_of(segment: Segment) -> float:
    """Seconds at which a segment is shown (ISO/IEC 14496-12, ``tfdt``)."""
    at = segment.data.index(b"tfdt") + 4
    version, ticks = struct.unpack_from(">BxxxQ", segment.data, at)
    assert version == 1, "32 bits are over after 13 hours"
    return float(ticks) / 90_000


def _held(folder: Path) -> tuple[int, int, int, int]:
    process = psutil.Process()
    files = len(list(folder.iterdir()))
    return process.memory_info().rss, process.num_threads(), process.num_fds(), files
