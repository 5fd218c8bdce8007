"""Reading a source in a thread of its own, and the time of its frames."""

import gc
from itertools import pairwise

import av
import pytest

from perception import open_source
from perception.server.streams.capture import Capture, Clock
from perception.types import Frame
from tests.media import make_video, stamp
from tests.server.waiting import wait_for


def test_the_clock_never_runs_back():
    clock = Clock()
    seen = []

    def show(times):
        seen.extend(clock.stamp(Frame(stamp(0), time=t)) for t in times)

    show([100.0, 100.04, 100.08])
    clock.restart()
    show([3.0, 3.04])
    show([2.0, 2.04])  # a camera that sets its clock back
    show([9000.0, 9000.04])  # and forth
    assert [f.index for f in seen] == list(range(9))
    times = [f.time for f in seen]
    assert times[:3] == pytest.approx([0, 0.04, 0.08])
    assert all(0 < b - a < 0.1 for a, b in pairwise(times))


def test_a_capture_that_is_stopped_gives_nothing_more(tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=100, fps=100)
    frames = []
    capture = Capture(lambda: open_source(path), frames.append, lambda: None, Clock(), loop=True)
    wait_for(lambda: len(frames) > 5)
    capture.stop()
    count = len(frames)
    wait_for(lambda: not capture.alive)
    assert len(frames) <= count + 1
    assert capture.ended
    assert capture.error is None


def test_a_file_played_again_and_again_leaves_nothing_to_the_garbage_collector(tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=3, fps=100)
    playings = 0

    def connect():
        nonlocal playings
        playings += 1
        return open_source(path)

    def alive():
        return sum(type(o) is av.VideoFrame for o in gc.get_objects())

    gc.collect()
    gc.disable()  # in a server with few objects that come and go, minutes pass between its visits
    try:
        before = alive()
        capture = Capture(connect, lambda frame: None, lambda: None, Clock(), loop=True)
        wait_for(lambda: playings > 30)
        capture.stop()
        wait_for(lambda: not capture.alive)
        left = alive() - before
    finally:
        gc.enable()
    assert capture.error is None
    assert left < 10  # each playing left the first frame, and that the decoder's memory: 0.7 MB at 640x360
