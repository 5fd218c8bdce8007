"""Clips and snapshots of one source's events: begun, prolonged and finished as they come."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import av.error

from perception.errors import PerceptionError
from perception.footage.clip_file import ClipFile
from perception.footage.settings import ClipSettings
from perception.footage.store import FootageStore
from perception.picture.jpeg import encode_jpeg
from perception.sources.packets import Moment, Packet, PacketRing, Stretch
from perception.types import Picture, Prediction

log = logging.getLogger("perception")

STEP_S = 0.5
"""Seconds between two looks at what has come, where files are written in a thread of their own."""

MOST_SNAPSHOTS = 4
"""Snapshots that may wait to be drawn; each holds a frame. Events beyond have none."""

PART_OF_STORE = 4
"""A clip ends when it takes that part of what the store may hold."""

OVERDUE_S = 10.0
"""Where frames come and no result does, a clip is finished so many seconds late."""


@dataclass
class _Clip:
    """A clip that is being written."""

    name: str
    stretch: Stretch
    number: int  # of the packet that is written next
    first: float
    until: float
    whole: int  # packets that must be in it, that is all before this number
    file: ClipFile | None = None
    over: bool = False


class FootageRecorder:
    """Gives the events of one source their links, and makes the files that they lead to.

    It is a stage: the last one, behind those that make events. Events during a clip prolong it and share it.

    Args:
        store: where files are kept.
        settings: how much of the source is kept.
        draw: makes the annotated picture of a prediction.
        link: makes the link to a file of that name.
        background: write in a thread, so that frames do not wait for a disk; else in that of the caller, so that no
            packet is lost however fast frames come.
        name: of the source, for the log.

    Attributes:
        packets: for `perception.sources.open_source`.
    """

    def __init__(
        self,
        store: FootageStore,
        settings: ClipSettings,
        draw: Callable[[Prediction], Picture],
        *,
        link: Callable[[str], str] = str,
        background: bool = False,
        name: str = "",
    ) -> None:
        self.packets = PacketRing(settings.before_s, settings.memory_bytes, settings.sound)
        self._store = store
        self._settings = settings
        self._draw = draw
        self._link = link
        self._background = background
        self._name = name
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._clips: list[_Clip] = []
        self._pictures: deque[tuple[str, Prediction]] = deque()
        self._reached: Moment | None = None
        self._woken = threading.Event()
        self._closed = False
        self._told = False
        self._thread: threading.Thread | None = None

    def __call__(self, prediction: Prediction) -> Prediction:
        """Take the next prediction; its events have links where there is something to link to."""
        moment = self.packets.reach(prediction.frame.arrived)
        self._reached = moment or self._reached
        if prediction.events:
            clip = None if moment is None else self._clip_of(moment)
            if clip is None and self.packets.problem and not self._told:
                self._told = True
                log.warning("%s: no clip of an event: %s", self._name, self.packets.problem)
            snapshot = self._snapshot_of(prediction)
            events = tuple(replace(event, clip=clip, snapshot=snapshot) for event in prediction.events)
            prediction = replace(prediction, events=events)
        if not self._background:
            self._step()
        return prediction

    def close(self) -> None:
        """Finish all files with what there is. Safe to call twice."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._woken.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._step(last=True)

    # Decided at once, so that events need not wait.

    def _clip_of(self, moment: Moment) -> str | None:
        with self._lock:
            if self._closed:
                return None
            until = moment.time + self._settings.after_s
            last = self._clips[-1] if self._clips else None
            if (
                last is not None
                and not last.over
                and last.stretch is moment.stretch
                and until - last.first <= self._settings.longest_s
            ):
                last.until = max(last.until, until)
                last.whole = max(last.whole, self.packets.behind(moment))
                return self._link(last.name)
            number = self.packets.start(moment)
            name = None if number is None else self._store.new_name(moment.stretch.tracks.suffix)
            if number is None or name is None:
                return None
            first = moment.time - self._settings.before_s
            self._clips.append(_Clip(name, moment.stretch, number, first, until, self.packets.behind(moment)))
            self._wake()
            return self._link(name)

    def _snapshot_of(self, prediction: Prediction) -> str | None:
        with self._lock:
            if not self._settings.snapshots or self._closed or len(self._pictures) >= MOST_SNAPSHOTS:
                return None
            name = self._store.new_name(".jpg")
            if name is None:
                return None
            self._pictures.append((name, prediction))
            self._wake()
            return self._link(name)

    def _wake(self) -> None:
        if self._background and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="perception-footage", daemon=True)
            self._thread.start()
        self._woken.set()

    # Written when there is time.

    def _run(self) -> None:
        while not self._closed:
            busy = bool(self._clips)
            self._woken.wait(STEP_S if busy else None)
            self._woken.clear()
            try:
                self._step()
            except Exception:  # whatever it is, later events have theirs
                log.exception("clips")

    def _step(self, last: bool = False) -> None:
        with self._writing:
            while self._pictures:
                self._write_picture(*self._pictures[0])
                self._pictures.popleft()
            for clip in [*self._clips]:
                self._advance(clip, last)

    def _write_picture(self, name: str, prediction: Prediction) -> None:
        try:
            self._store.write(name, encode_jpeg(self._draw(prediction)))
        except (OSError, PerceptionError) as error:
            log.warning("a snapshot cannot be kept: %s", getattr(error, "strerror", None) or error)
            self._store.discard(name)

    def _advance(self, clip: _Clip, last: bool) -> None:
        """Write what has come of a clip; finish it where nothing more will."""
        packets, ended = self.packets.packets(clip.stretch, clip.number)
        with self._lock:
            wanted = _wanted(packets, clip)
            limit = self._store.limit_bytes
            full = limit is not None and clip.file is not None and clip.file.bytes > limit // PART_OF_STORE
            clip.over = clip.over or last or full or self._is_past(clip, packets[len(wanted) :], ended)
        try:
            if wanted:
                if clip.file is None:
                    clip.file = ClipFile(self._store.part(clip.name), clip.stretch.tracks, wanted[0])
                clip.file.write(wanted)
                clip.number = wanted[-1].number + 1
            if clip.over:
                self._finish(clip)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            log.warning("a clip cannot be kept: %s", getattr(error, "strerror", None) or error)
            self._give_up(clip)

    def _is_past(self, clip: _Clip, later: list[Packet], ended: bool) -> bool:
        """Return whether no event that is still to come will prolong a clip, of which ``later`` ones are not a part."""
        reached = self._reached
        if reached is None or reached.stretch is not clip.stretch:
            return True
        if self._background and (ended or (later and later[-1].time > clip.until + OVERDUE_S)):
            return True
        return bool(later) and reached.time > clip.until

    def _finish(self, clip: _Clip) -> None:
        if clip.file is None:
            self._give_up(clip)
            return
        clip.file.close()
        self._store.publish(clip.name)
        self._forget(clip)

    def _give_up(self, clip: _Clip) -> None:
        clip.over = True
        if clip.file is not None:
            clip.file.abort()
        self._store.discard(clip.name)
        self._forget(clip)

    def _forget(self, clip: _Clip) -> None:
        with self._lock:
            self._clips.remove(clip)


def _wanted(packets: list[Packet], clip: _Clip) -> list[Packet]:
    """Return the packets of a clip: those up to its end, and all without which its events' frames are not whole.

    The end is at the first one, in the order of decoding, that is shown too late: what comes behind it and is shown
    earlier may need it.
    """
    for index, packet in enumerate(packets):
        if packet.number >= clip.whole and not packet.sound and packet.time > clip.until:
            return packets[:index]
    return packets
