"""Of a camera whose frames are not all looked at, those are decoded that are needed for the ones that are."""

import time
from contextlib import ExitStack, closing
from itertools import pairwise

import pytest

from perception import open_source
from perception.postprocess.post_processing import DetectionOptions
from perception.server.inference.scheduler import Scheduler
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from tests.media import read_stamp, tcp_server
from tests.rtsp_camera import access_units, rtsp_camera
from tests.server.streams import stream_of
from tests.server.waiting import wait_for

KEYINT = 10
PATIENT = Timeouts(stall=1.5, silence=8.0, opening=20.0, first_pause=0.05, longest_pause=0.2, age=1e6)

pytestmark = pytest.mark.usefixtures("no_stream_is_left_behind")


@pytest.fixture
def camera(tmp_path):
    """The address of one with 25 frames a second, of which each tenth is a key frame."""
    with tcp_server(rtsp_camera(access_units(tmp_path, frames=100, keyint=KEYINT))) as port:
        yield f"rtsp://127.0.0.1:{port}/live"


def numbers_of(stream, count):
    """Of the next frames: what they show."""
    with stream.subscribe() as viewer:
        taken = [viewer.next(60) for _ in range(count)]
    assert all(taken), stream.status()
    return [read_stamp(prediction.frame.image) for prediction in taken]


def test_a_low_rate_is_met_by_key_frames_alone(camera, scheduler):
    """And those that are left out tell that the camera is there."""
    with stream_of(camera, scheduler, timeouts=PATIENT, fps=0.5) as stream:
        wait_for(lambda: stream.status()["decoding"] == "key frames" and stream.frames >= 3)
        # Those of the beginning may show anything: the newest frame when it was opened, and the next one.
        states = set()
        with stream.subscribe() as viewer:
            frames = []
            while len(frames) < 3:
                if (prediction := viewer.next(0.1)) is not None:
                    frames.append(prediction.frame)
                states.add(stream.state)
        assert all(read_stamp(frame.image) % KEYINT == 0 for frame in frames)
        assert states == {"running"}  # also between two that are 2 s apart
        assert all(after.time - before.time > 0.9 for before, after in pairwise(frames))
        assert stream.status()["decoded"] < 0.2


def test_all_are_decoded_where_the_operator_says_so(camera, scheduler):
    with stream_of(camera, scheduler, timeouts=PATIENT, fps=2.5, decode="all") as stream:
        numbers = numbers_of(stream, 8)
        assert stream.status()["decoding"] == "all" and stream.status()["decoded"] == 1
        stream.adjust(2.5, 1.0, False, "needed")
        wait_for(lambda: stream.status()["decoding"] == "key frames")
        stream.adjust(2.5, 1.0, False, "all")
        wait_for(lambda: stream.status()["decoding"] == "all")
        assert len(numbers) == 8


def test_a_stream_that_nobody_watches_decodes_key_frames_until_somebody_does(camera, scheduler):
    with stream_of(camera, scheduler, timeouts=PATIENT) as stream:
        numbers = numbers_of(stream, 20)
        assert any(number % KEYINT for number in numbers)
        wait_for(lambda: stream.status()["decoding"] == "key frames")  # which is no question by a client
        frames = stream.frames
        wait_for(lambda: stream.frames >= frames + 2)
        numbers = numbers_of(stream, 20)
        assert any(number % KEYINT for number in numbers)


def test_what_the_engine_has_no_time_for_is_not_decoded(camera, scheduler):
    """It takes a tenth of a second for a frame, and six cameras give 25 a second; all is decoded again later."""
    model = scheduler.model.with_options(DetectionOptions())
    infer, slow = model.infer, [0.1]
    model.infer = lambda frame: (time.sleep(slow[0]), infer(frame))[1]
    with Scheduler(model, workers=1) as own, ExitStack() as stack:
        connect = lambda: open_source(camera, timeout=8)  # noqa: E731
        streams = [Stream(f"s{i}", "test", connect, own, timeouts=PATIENT) for i in range(6)]
        for each in streams:
            stack.enter_context(closing(each))
        stream, viewer = streams[0], next(iter([stack.enter_context(each.subscribe()) for each in streams]))
        wait_for(lambda: all(each.status()["decoding"] == "key frames" for each in streams), 60)
        viewer.next(60)
        viewer.next(60)  # whose frame came after that
        numbers = []
        while len(numbers) < 4 or any(number % KEYINT for number in numbers[-4:]):
            numbers.append(read_stamp(viewer.next(60).frame.image))
            assert len(numbers) < 60  # a key frame may come late, where the machine is busy
        for each in streams[1:]:
            each.close()
        slow[0] = 0.0
        wait_for(lambda: stream.status()["decoding"] == "all" and own.share.interval_s == 0, 120)
