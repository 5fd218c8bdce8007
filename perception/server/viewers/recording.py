"""Recordings: an annotated stream as an MP4 that is downloaded when it is done.

A recording is a file, ``ID.mp4`` in the recordings' folder, and nothing else that is kept: those that an earlier server
left are there again after a start. They are deleted when asked, or when their time is over.
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from perception.annotate import stem
from perception.common.files import file_size
from perception.common.private import private_folder
from perception.errors import PerceptionError
from perception.server.options import Options
from perception.server.problems import Busy, Conflict, NotFound
from perception.server.settings import Limits
from perception.server.streams.capture import TIME_BASE
from perception.server.streams.stream import Stream
from perception.server.streams.subscription import Subscription
from perception.sinks.video import VideoSink
from perception.types import SourceInfo

log = logging.getLogger("perception")

State = Literal["recording", "finished", "failed"]

MAX_AT_ONCE = 4
"""Recordings in progress, of all streams together: each has an encoder."""

MIN_FREE_BYTES = 256 << 20
"""A recording stops by itself before the disk is full: others write there too."""

_FILE = re.compile(r"([0-9a-f]{16})\.mp4")


class Recording:
    """One recording of one stream, in a thread of its own.

    Args:
        id: what routes call it; the file is named after it.
        stream: what is recorded.
        options: how it is drawn.
        path: where to.
        max_seconds, max_bytes: it stops by itself there.
        clock: seconds, see `Recordings`.

    Raises:
        UsageError: the options do not fit the model.
        Busy: the stream is being drawn with too many different options already.
        SinkError: the folder cannot be written to.
    """

    def __init__(
        self,
        id: str,
        stream: Stream,
        options: Options,
        path: Path,
        *,
        max_seconds: float,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = id
        self.path = path
        self.state: State = "recording"
        self.message = ""
        self.seconds = 0.0
        self.frames = 0
        self.ended_at: float | None = None
        now = datetime.now().astimezone()
        self.name = f"{stem(stream.name)}-{now:%Y%m%d-%H%M%S}.mp4"
        self._stream_id = stream.id
        self._now = clock
        self._limits = max_seconds, max_bytes
        self._stopping = threading.Event()
        # Only while it records: a stream holds pictures, and a recording that is done is kept for a day.
        self._sink: VideoSink | None = VideoSink(path, overwrite=True)
        self._subscription: Subscription | None = stream.subscribe(options)
        arguments = stream, self._subscription, self._sink
        self._thread = threading.Thread(target=self._run, args=arguments, name=f"perception-record {id}", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """Name, state and progress, for JSON."""
        size = 0
        with suppress(OSError):
            size = self.path.stat().st_size
        return {
            "id": self.id,
            "stream": self._stream_id,
            "name": self.name,
            "state": self.state,
            "message": self.message,
            "seconds": round(self.seconds, 2),
            "frames": self.frames,
            "bytes": size,
        }

    def stop(self) -> None:
        """Finish the file. Returns when it is complete; calling it again is fine."""
        self._stopping.set()
        subscription = self._subscription
        if subscription is not None:
            subscription.close()
        self._thread.join()

    def _run(self, stream: Stream, subscription: Subscription, sink: VideoSink) -> None:
        try:
            self._record(stream, subscription, sink)
        except PerceptionError as error:
            sink.abort()
            self.message = error.message
            log.warning("recording of %s: %s", stream.id, error)
            self.state = "failed"
        except Exception as error:
            log.exception("recording of %s", stream.id)
            sink.abort()
            self.message = f"{type(error).__name__}: {error}"
            self.state = "failed"
        finally:
            subscription.close()
            self._subscription = self._sink = None
            self.ended_at = self._now()

    def _record(self, stream: Stream, subscription: Subscription, sink: VideoSink) -> None:
        began: float | None = None
        while not self._stopping.is_set() and not subscription.over:
            prediction = subscription.next(1.0)
            if prediction is None:
                continue
            frame = prediction.frame
            if began is None:
                began = frame.time
                info = stream.info
                sink.open(
                    SourceInfo(
                        uri=stream.name,
                        kind="stream",
                        width=frame.width,
                        height=frame.height,
                        fps=None if info is None else info.fps,
                        time_base=TIME_BASE,
                        live=True,
                    ),
                    stream.model.card,
                )
            sink.write(prediction)
            self.frames += 1
            self.seconds = frame.time - began
            if self.frames % 25 == 1 and (reason := self._limit()):
                self.message = reason
                break
        if began is None:
            self.message = self.message or "no frame came while it ran"
            self.state = "failed"
            return
        sink.close()
        self.state = "finished"

    def _limit(self) -> str:
        """Why it should stop by itself, or nothing."""
        seconds, size = self._limits
        if self.seconds > seconds:
            return f"stopped at {seconds:g} s, the longest a recording may be"
        with suppress(OSError):
            if self.path.stat().st_size > size:
                return f"stopped at {file_size(size)}, the most a recording may have"
            if shutil.disk_usage(self.path.parent).free < MIN_FREE_BYTES:
                return "stopped because the disk of the server is nearly full"
        return ""


class Recordings:
    """All recordings of a server.

    Args:
        folder: where they are; made when the first one begins.
        limits: how long, how large, and how long and how many are kept.
        clock: seconds, by which they are kept: the machine's own time may be set meanwhile.
    """

    def __init__(self, folder: Path, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._limits = limits
        self._lock = threading.Lock()
        self._recordings: dict[str, Recording] = {}
        self._now = clock
        self._earlier: dict[
            str, float
        ] = {}  # of an earlier server: by the clock, since when; their files tell their age
        with suppress(OSError):
            for path in folder.iterdir():
                if match := _FILE.fullmatch(path.name):
                    age = max(0.0, time.time() - path.stat().st_mtime)
                    self._earlier[match[1]] = clock() - age

    def start(self, stream: Stream, options: Options) -> Recording:
        """Begin to record.

        Raises:
            Busy: there are as many in progress as may be, or the disk is nearly full.
            PerceptionError: it cannot be written, or the options do not fit.
        """
        if stream.over:
            raise Conflict(f"the stream has {stream.state}; open it again to record it")
        self._make_room()
        with self._lock:
            running = sum(r.state == "recording" for r in self._recordings.values())
            if running >= MAX_AT_ONCE:
                raise Busy(f"{running} recordings are in progress, which is the limit", 10.0)
            try:
                private_folder(self._folder)
                free = shutil.disk_usage(self._folder).free
            except OSError as error:
                raise PerceptionError(f"recordings cannot be written: {error.strerror}") from None
            if free < MIN_FREE_BYTES:
                raise Busy("the disk of the server is nearly full", 60.0)
            id = secrets.token_hex(8)
            limits = self._limits
            made = Recording(
                id,
                stream,
                options,
                self._folder / f"{id}.mp4",
                max_seconds=limits.upload_seconds,
                max_bytes=limits.upload_bytes,
                clock=self._now,
            )
            self._recordings[id] = made
        return made

    def _make_room(self) -> None:
        """Delete the oldest where there are as many as are kept; as with jobs, each of which is one, too."""
        with self._lock:
            ended = sorted((r.ended_at, id) for id, r in self._recordings.items() if r.ended_at is not None)
        for _, id in ended[: max(0, len(ended) - self._limits.jobs_kept + 1)]:
            with suppress(NotFound):
                self.delete(id)

    def get(self, id: str) -> Recording:
        """A recording of this server's own time.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            found = self._recordings.get(id)
        if found is None:
            raise NotFound(f"there is no recording {id[:40]!r}; it may have been deleted after its retention time")
        return found

    def video(self, id: str) -> tuple[Path, str]:
        """The file of a recording that is done, also of an earlier server, and a name for it.

        Raises:
            NotFound: there is none.
            Conflict: it is still in progress, or failed before there was a picture.
        """
        with self._lock:
            found = self._recordings.get(id)
        if found is not None and found.state == "recording":
            raise Conflict("it is still recording; stop it first")
        path = self._folder / f"{id}.mp4"
        if not _FILE.fullmatch(path.name) or (found is None and not path.is_file()):
            raise NotFound(f"there is no recording {id[:40]!r}")
        if not path.is_file():
            raise Conflict(f"there is no video: {found.message if found else 'it is gone'}")
        return path, f"{id}.mp4" if found is None else found.name

    def delete(self, id: str) -> None:
        """Stop a recording, if it runs, and delete it.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            found = self._recordings.pop(id, None)
        path = self._folder / f"{id}.mp4"
        if found is None and not (_FILE.fullmatch(path.name) and path.is_file()):
            raise NotFound(f"there is no recording {id[:40]!r}")
        if found is not None:
            found.stop()
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def delete_old(self) -> None:
        """Delete those whose time is over."""
        before = self._now() - self._limits.job_ttl_s
        with self._lock:
            over = [id for id, r in self._recordings.items() if r.ended_at is not None and r.ended_at < before]
            earlier = [id for id, since in self._earlier.items() if since < before]
            for id in earlier:
                del self._earlier[id]
        for id in over + earlier:
            with suppress(NotFound):
                self.delete(id)

    def close(self) -> None:
        """Finish those in progress."""
        with self._lock:
            recordings = list(self._recordings.values())
        for recording in recordings:
            recording.stop()
