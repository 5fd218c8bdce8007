"""Sources whose pictures carry their number, events at some of them, and what the clips of these show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from perception.events.event import Event
from perception.footage.recorder import FootageRecorder
from perception.footage.settings import ClipSettings
from perception.footage.store import FootageStore
from perception.sources import open_source
from perception.types import Prediction
from tests.media import read_stamp


def draw(prediction: Prediction) -> np.ndarray:
    """The picture with a red corner, to tell that it was drawn upon."""
    image = prediction.frame.image.copy()
    image[:16, :16] = (0, 0, 255)
    return image


def event_at(prediction: Prediction) -> Event:
    frame = prediction.frame
    return Event(kind="crossed", source="yard", source_time=frame.time, frame=frame.index, rule="gate", count=1)


def record(
    path: str | Path,
    folder: Path,
    numbers: Sequence[int],
    *,
    store: FootageStore | None = None,
    numbered: bool = True,
    **settings: Any,
) -> dict[int, Event]:
    """Read a source to its end, with an event at each of some pictures; these events by the picture's number.

    Args:
        path: of the source.
        folder: of the clips.
        numbers: of the pictures with events.
        store: in place of one without limits.
        numbered: the pictures carry their numbers; else they are counted.
        settings: of `ClipSettings`.
    """
    keep = store or FootageStore(folder, private=False)
    recorder = FootageRecorder(keep, ClipSettings(**settings), draw, link=lambda name: str(folder / name))
    found = {}
    with open_source(path, packets=recorder.packets) as frames:
        for frame in frames:
            number = read_stamp(frame.image) if numbered else frame.index
            prediction = Prediction(frame)
            if number in numbers:
                prediction = Prediction(frame, events=(event_at(prediction),))
            prediction = recorder(prediction)
            if prediction.events:
                [found[number]] = prediction.events
    recorder.close()
    assert sorted(found) == sorted(numbers)
    assert not [p for p in folder.iterdir() if p.suffix == ".part"]
    return found


def shown(path: str | Path, read: Callable[[np.ndarray], int] = read_stamp) -> list[int]:
    """The numbers of all pictures of a video, which must decode without an error, from the first packet to the last."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [frame.time for frame in frames]
        assert all(not frame.is_corrupt for frame in frames)
    assert times == sorted(times) and times[0] >= 0
    with av.open(str(path)) as container:
        packets = sum(packet.size > 0 for packet in container.demux(video=0))
    assert packets == len(frames)  # none was thrown away by the decoder
    return [read(frame.to_ndarray(format="bgr24")) for frame in frames]
