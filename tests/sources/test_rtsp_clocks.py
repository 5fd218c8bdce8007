"""Cameras whose clock cannot be believed, and ones whose picture never begins."""

import time

import av
import numpy as np
import pytest

from perception.errors import SourceError
from perception.sinks import open_sink
from perception.sources import open_source
from perception.types import Prediction
from tests.media import read_stamp, tcp_server
from tests.rtsp_camera import access_units, rtsp_camera

CLOCKS = {
    "sane": lambda n: n * 3600,
    "milliseconds": lambda n: n * 40,
    "microseconds": lambda n: n * 40_000,
    "twice as fast": lambda n: n * 7200,
    "half as fast": lambda n: n * 1800,
    "outliers ahead": lambda n: n * 3600 + (600 * 90_000 if n % 20 == 15 else 0),
    "outliers behind": lambda n: 10**9 + n * 3600 - (600 * 90_000 if n % 20 == 15 else 0),
    "set ahead": lambda n: n * 3600 + (3600 * 90_000 if n > 70 else 0),
    "set back": lambda n: 10**9 + n * 3600 - (3600 * 90_000 if n > 70 else 0),
    "standing": lambda n: 12345,
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_what_is_recorded_lasts_as_long_as_the_wall_says(tmp_path, clock):
    units = access_units(tmp_path)
    frames = []
    out = tmp_path / "o.mp4"
    with (
        tcp_server(rtsp_camera(units, stamp=CLOCKS[clock])) as port,
        open_source(f"rtsp://127.0.0.1:{port}/live", timeout=10) as source,
        open_sink(out) as sink,
    ):
        sink.open(source.info)
        for frame in source:
            frames.append((frame.time, frame.arrived, read_stamp(frame.image)))
            sink.write(Prediction(frame))
            if frame.arrived - frames[0][1] > 4:
                break
    times, arrived, _ = np.array(frames).T
    wall = arrived[-1] - arrived[0]
    assert np.all(np.diff(times) > 0)
    assert times[-1] - times[0] == pytest.approx(wall, abs=0.7)
    with av.open(str(out)) as container:
        assert container.duration / 1e6 == pytest.approx(wall, abs=0.8)


def test_a_sane_clock_is_followed_and_not_the_network(tmp_path):
    units = access_units(tmp_path)
    with (
        tcp_server(rtsp_camera(units)) as port,
        open_source(f"rtsp://127.0.0.1:{port}/live", timeout=10, max_frames=60) as source,
    ):
        frames = list(source)
    steps = np.diff([f.time for f in frames]) * 25
    np.testing.assert_allclose(steps, np.round(steps), atol=0.01)


def test_a_camera_without_key_frames_is_an_error_and_does_not_hang(tmp_path):
    units = access_units(tmp_path)
    began = time.monotonic()
    with (
        tcp_server(rtsp_camera(units, key_frames=False)) as port,
        pytest.raises(SourceError, match=r"no picture in [\d.]+ s: \d+ packets came, but no key frame"),
    ):
        open_source(f"rtsp://bob:s3cret@127.0.0.1:{port}/live", timeout=2.0)
    assert time.monotonic() - began < 30  # for ever, once


def test_a_key_frame_that_is_late_is_waited_for(tmp_path):
    units = access_units(tmp_path)
    shifted = units[1:] + units[:1]  # nine frames that need one that was sent before anybody looked
    shifted[0] = [u for u in units[0] if u[0] & 31 in (7, 8)] + shifted[0]
    with (
        tcp_server(rtsp_camera(shifted)) as port,
        open_source(f"rtsp://127.0.0.1:{port}/live", timeout=5, max_frames=5) as source,
    ):
        assert len(list(source)) == 5


def test_the_key_frame_that_a_camera_begins_with_is_not_lost(tmp_path):
    units = access_units(tmp_path, frames=500, keyint=500)  # the next one comes after 20 s
    with (
        tcp_server(rtsp_camera(units)) as port,
        open_source(f"rtsp://127.0.0.1:{port}/live", timeout=8, max_frames=5) as source,
    ):
        frames = list(source)
    assert len(frames) == 5
    assert np.all(np.diff([frame.time for frame in frames]) > 0)
