"""What holds pictures and decoders goes at once where nobody needs it any more, and not when Python looks for circles.

A process with many objects does that seldom: sixteen cameras that were watched for five seconds each minute took a
hundred megabytes more each time.
"""

import asyncio
import gc
import time
import weakref

import pytest

from perception import open_source
from perception.server.options import Options
from perception.server.viewers.broadcast import Broadcast
from perception.server.viewers.fragmented_mp4 import FragmentedMp4Sink
from perception.server.viewers.motion_jpeg import MotionJpegSink
from perception.server.viewers.wall import TileSink
from tests.media import tcp_server
from tests.rtsp_camera import access_units, rtsp_camera
from tests.server.streams import stream_of
from tests.server.waiting import wait_for

pytestmark = pytest.mark.usefixtures("no_stream_is_left_behind", "no_circles_are_found")


@pytest.fixture
def no_circles_are_found():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def camera(tmp_path):
    with tcp_server(rtsp_camera(access_units(tmp_path, frames=100, keyint=10))) as port:
        yield f"rtsp://127.0.0.1:{port}/live"


@pytest.mark.parametrize("sink", [TileSink, MotionJpegSink, FragmentedMp4Sink])
def test_what_a_viewer_was_shown(camera, scheduler, sink):
    async def visit(stream):
        viewer = Broadcast.join(stream, Options(opacity=0.3), sink)
        assert await viewer.next(60) is not None
        broadcast = stream.broadcasts[sink, Options(opacity=0.3)]
        kept = [weakref.ref(broadcast), weakref.ref(broadcast._subscription.view)]
        viewer.leave()
        del viewer, broadcast
        until = time.monotonic() + 30  # its thread ends, and tells the loop
        while any(each() is not None for each in kept) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return [each() for each in kept]

    with stream_of(camera, scheduler) as stream:
        assert asyncio.run(visit(stream)) == [None, None]


def test_a_stream_that_is_closed_though_it_is_known(camera, scheduler):
    with stream_of(camera, scheduler) as stream, stream.subscribe() as viewer:
        prediction = viewer.next(60)
        capture = stream._connections.newest
        wait_for(lambda: capture.received > 1)
        source = capture._source
        kept = [
            weakref.ref(each) for each in (prediction.picture.y, prediction.frame.picture.y, source, source._decoder)
        ]
        received, dropped = capture.received, capture.dropped
        assert received > 0
        del prediction, source
        stream.close()
        wait_for(lambda: all(each() is None for each in kept), 30)
        assert stream.newest() is None and viewer.next(0.1) is None and viewer.over
        assert capture.dropped >= dropped  # what it had lost is told all the same
        assert stream.status()["frames"] > 0


def test_a_source_that_is_closed(camera):
    source = open_source(camera, timeout=20)
    assert next(source) is not None
    kept = [weakref.ref(source), weakref.ref(source._decoder)]
    source.close()
    del source
    wait_for(lambda: all(each() is None for each in kept), 30)
