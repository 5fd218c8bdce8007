"""Recordings: playable, in time, bounded, and gone when they should be."""

import errno
import gc
import os
import re
import time
import weakref
from contextlib import closing

import av
import numpy as np
import pytest

from perception import SinkError, UsageError, load_model, open_source
from perception.server.inference.scheduler import Scheduler
from perception.server.options import Options
from perception.server.problems import Busy, Conflict, NotFound
from perception.server.settings import Limits
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from perception.server.viewers import recording as record
from perception.server.viewers.recording import Recordings
from tests.media import make_video, read_stamp
from tests.models import write_model
from tests.server.clocks import ManualClock
from tests.server.threads import NewThreads
from tests.server.waiting import wait_for

PLAIN = Options(opacity=0, legend=False, boxes=False)
TIMEOUTS = Timeouts(first_pause=0.05, age=10.0)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp("models") / "m.onnx", classes=["white", "black"], detection=True)
    with load_model(path, precision="fp32") as model, Scheduler(model) as made:
        yield made


@pytest.fixture
def recordings(tmp_path):
    threads = NewThreads()
    made = Recordings(tmp_path / "recordings", Limits())
    yield made
    made.close()
    assert not threads.named("perception-record")


def stream_of(uri, scheduler, loop=True):
    connect = lambda: open_source(uri)  # noqa: E731
    return closing(Stream("s", "the street", connect, scheduler, reconnect=False, loop=loop, timeouts=TIMEOUTS))


def frames_of(path):
    with av.open(str(path)) as container:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="bgr24")) for f in container.decode(video=0)]


def test_what_is_recorded_is_what_was_seen(tmp_path, scheduler, recordings):
    video = make_video(tmp_path / "v.mp4", frames=250, fps=25)
    with stream_of(video, scheduler) as stream:
        recording = recordings.start(stream, PLAIN)
        wait_for(lambda: recording.frames >= 30)
        with pytest.raises(Conflict, match="still recording"):
            recordings.video(recording.id)
        assert stream.viewers == 1
        recording.stop()
        recording.stop()
        status = recording.status()
        assert stream.viewers == 0
    path, name = recordings.video(recording.id)
    assert name.startswith("the_street-") and name.endswith(".mp4")
    assert status["state"] == "finished"
    assert status["bytes"] == path.stat().st_size
    frames = frames_of(path)
    assert len(frames) == status["frames"] >= 30
    times = np.array([t for t, _ in frames])
    numbers = np.unwrap([read_stamp(image) for _, image in frames], period=250)
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    # Frames that were lost leave a gap in time; the rest does not move.
    assert times[-1] == pytest.approx((numbers[-1] - numbers[0]) / 25, abs=0.3)
    assert times[-1] == pytest.approx(status["seconds"], abs=0.01)


def test_options_are_the_recordings_own(tmp_path, scheduler, recordings):
    video = make_video(tmp_path / "v.mp4", frames=100, fps=25)
    with stream_of(video, scheduler) as stream:
        both = [recordings.start(stream, o) for o in (PLAIN, Options(opacity=1, legend=False, boxes=False))]
        wait_for(lambda: all(r.frames >= 10 for r in both))
        for recording in both:
            recording.stop()
        with pytest.raises(UsageError, match="did you mean"):
            recordings.start(stream, Options(classes=("whit",)))
    darkest = [min(image.min() for _, image in frames_of(r.path)) for r in both]
    assert darkest[0] > 15  # the stamps' dark is 30
    assert darkest[1] < 8  # the class black is 0


def test_it_ends_with_the_stream(tmp_path, scheduler, recordings):
    video = make_video(tmp_path / "v.mp4", frames=30, fps=25)
    with stream_of(video, scheduler, loop=False) as stream:
        recording = recordings.start(stream, PLAIN)
        wait_for(lambda: recording.state != "recording")
        assert recording.state == "finished"
        with pytest.raises(Conflict, match="ended"):
            recordings.start(stream, PLAIN)
    assert len(frames_of(recording.path)) == recording.frames > 0


def test_pictures_that_change_their_size_are_fitted(tmp_path, scheduler, recordings):
    videos = [
        make_video(tmp_path / f"{i}.mp4", frames=12, fps=25, size_wh=s) for i, s in enumerate([(80, 48), (64, 64)])
    ]
    turns = [0]

    def connect():
        turns[0] += 1
        return open_source(videos[turns[0] % 2])

    with closing(Stream("s", "s", connect, scheduler, reconnect=False, loop=True, timeouts=TIMEOUTS)) as stream:
        recording = recordings.start(stream, PLAIN)
        wait_for(lambda: turns[0] >= 4)
        recording.stop()
    sizes = {image.shape[:2] for _, image in frames_of(recording.path)}
    assert len(sizes) == 1


def test_a_full_disk_fails_the_recording_and_nothing_else(tmp_path, scheduler, recordings, monkeypatch):
    with stream_of("synthetic:?size=64x48&fps=50&frames=0", scheduler) as stream:
        recording = recordings.start(stream, PLAIN)
        wait_for(lambda: recording.frames >= 60)

        def full(prediction):
            raise SinkError(os.strerror(errno.ENOSPC), recording.path)

        monkeypatch.setattr(recording._sink, "write", full)
        wait_for(lambda: recording.state == "failed")
        assert recording.status()["message"] == "No space left on device"
        assert stream.state == "running"
        assert stream.viewers == 0
        # What was written until then is there, and plays.
        path, _ = recordings.video(recording.id)
        assert len(frames_of(path)) > 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"upload_seconds": 0.5}, "the longest a recording may be"),
        ({"upload_bytes": 500}, r"stopped at [1-9][\d.]* (bytes|kB), the most"),
    ],
)
def test_it_stops_by_itself_at_its_limits(tmp_path, scheduler, limits, message):
    recordings = Recordings(tmp_path, Limits(**limits))
    with stream_of("synthetic:?size=160x96&fps=50&frames=0", scheduler) as stream:
        recording = recordings.start(stream, PLAIN)
        wait_for(lambda: recording.state == "finished")
    assert re.search(message, recording.message)
    assert len(frames_of(recording.path)) == recording.frames


def test_it_stops_before_the_disk_is_full(tmp_path, scheduler, recordings, monkeypatch):
    with stream_of("synthetic:?size=64x48&fps=50&frames=0", scheduler) as stream:
        recording = recordings.start(stream, PLAIN)
        wait_for(lambda: recording.frames > 2)
        monkeypatch.setattr(record, "MIN_FREE_BYTES", 1 << 62)
        wait_for(lambda: recording.state == "finished")
        assert "nearly full" in recording.message
        with pytest.raises(Busy, match="nearly full"):
            recordings.start(stream, PLAIN)
    assert len(frames_of(recording.path)) == recording.frames


def test_only_so_many_at_once(scheduler, recordings):
    with stream_of("synthetic:?size=64x48&frames=0", scheduler) as stream:
        started = [recordings.start(stream, PLAIN) for _ in range(record.MAX_AT_ONCE)]
        with pytest.raises(Busy, match="limit"):
            recordings.start(stream, PLAIN)
        started[0].stop()
        recordings.start(stream, PLAIN)


def test_a_recording_that_is_done_keeps_no_stream(tmp_path, scheduler, recordings):
    """Streams hold pictures, and recordings are kept for a day: a client could fill the memory with them."""
    streams = []
    for number in range(3):
        stream = Stream(str(number), "x", lambda: open_source("synthetic:?size=64x48&fps=25"), scheduler, loop=True)
        recording = recordings.start(stream, PLAIN)
        if number:
            wait_for(lambda recording=recording: recording.frames > 0)
        stream.close()
        wait_for(lambda recording=recording: recording.ended_at is not None)
        assert recording.status()["stream"] == str(number)
        streams.append(weakref.ref(stream))
        del stream, recording

    def gone():
        gc.collect()
        return all(stream() is None for stream in streams)

    wait_for(gone)
    assert len(recordings._recordings) == 3


def test_the_oldest_are_deleted_where_there_are_too_many(tmp_path, scheduler):
    made = Recordings(tmp_path, Limits(jobs_kept=3))
    with stream_of("synthetic:?size=64x48&fps=25", scheduler) as stream:
        ids = []
        for _ in range(5):
            recording = made.start(stream, PLAIN)
            wait_for(lambda recording=recording: recording.frames > 0)
            recording.stop()
            ids.append(recording.id)
    made.close()
    assert [id in made._recordings for id in ids] == [False] * 2 + [True] * 3
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(ids[2:])


def test_deleting(scheduler, recordings):
    with stream_of("synthetic:?size=64x48&frames=0", scheduler) as stream:
        recording = recordings.start(stream, PLAIN)
        wait_for(lambda: recording.frames > 3)
        recordings.delete(recording.id)
        assert not recording.path.exists()
        for call in (recordings.get, recordings.video, recordings.delete):
            with pytest.raises(NotFound):
                call(recording.id)
        assert stream.viewers == 0
    for id in ("../../etc/passwd", "0" * 16, ""):
        with pytest.raises(NotFound):
            recordings.video(id)
        with pytest.raises(NotFound):
            recordings.delete(id)


@pytest.mark.parametrize("set_by", [-400 * 86400, 0, 400 * 86400], ids=["back", "right", "ahead"])
def test_recordings_of_an_earlier_server_are_there_until_their_time_is_over(tmp_path, scheduler, monkeypatch, set_by):
    clocks = ManualClock(), ManualClock()
    first = Recordings(tmp_path, Limits(job_ttl_s=1000), clocks[0])
    with stream_of("synthetic:?size=64x48&frames=0", scheduler) as stream:
        recording = first.start(stream, PLAIN)
        wait_for(lambda: recording.frames > 3)
        first.close()
    (file,) = tmp_path.iterdir()
    os.utime(file, (time.time() - 300,) * 2)
    second = Recordings(tmp_path, Limits(job_ttl_s=1000), clocks[1])
    now = time.time()
    monkeypatch.setattr("perception.server.viewers.recording.time.time", lambda: now + set_by)
    path, name = second.video(recording.id)
    assert frames_of(path)
    assert name == f"{recording.id}.mp4"
    (tmp_path / "of somebody else.mp4").write_bytes(b"")
    clocks[1].advance(699)
    second.delete_old()
    assert path.exists()
    clocks[1].advance(2)
    second.delete_old()
    assert [file.name for file in tmp_path.iterdir()] == ["of somebody else.mp4"]
    # The first one's own clock counts from the end of the recording.
    clocks[0].advance(999)
    first.delete_old()
    assert first.get(recording.id) is recording
    clocks[0].advance(2)
    first.delete_old()
    with pytest.raises(NotFound):
        first.get(recording.id)


def test_a_stream_without_a_picture_leaves_no_file(tmp_path, scheduler, recordings):
    with stream_of(tmp_path / "none.mp4", scheduler) as stream:
        try:
            recording = recordings.start(stream, PLAIN)
        except Conflict:
            return  # it had failed already
        wait_for(lambda: recording.state == "failed")
        assert recording.message == "no frame came while it ran"
        with pytest.raises(Conflict, match="no frame"):
            recordings.video(recording.id)
    assert not recording.path.exists()


def test_a_folder_that_cannot_be_written(tmp_path, scheduler):
    (tmp_path / "file").write_bytes(b"")
    recordings = Recordings(tmp_path / "file" / "folder", Limits())
    with stream_of("synthetic:?size=64x48&frames=0", scheduler) as stream:
        with pytest.raises(Exception, match="cannot be written"):
            recordings.start(stream, PLAIN)
        assert stream.viewers == 0
