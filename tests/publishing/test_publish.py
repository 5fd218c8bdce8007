"""Publishing: what arrives at real receivers, and what a receiver that is away, slow or killed does to the rest."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from perception.errors import SinkError, UsageError
from perception.sinks import open_sink
from perception.sinks.publish import PublishSink
from perception.sinks.real_time import RealTime
from perception.types import Frame, Prediction
from tests.media import stamp
from tests.publishing.receivers import Receiver, RtspRecorder, WhipRecorder, free_port
from tests.server.rtsp_process import NEEDS, missing
from tests.server.waiting import wait_for
from tests.sinks.samples import info

FPS = 50
SIZE = (160, 96)
LIVE = info(width=SIZE[0], height=SIZE[1], fps=Fraction(FPS), live=True, kind="stream")
RECORDED = info(width=SIZE[0], height=SIZE[1], fps=Fraction(FPS), kind="file")
NUMBERS = 1000  # a stamp has ten bits


def prediction(number: int, size: tuple[int, int] = SIZE, picture: np.ndarray | None = None) -> Prediction:
    picture = stamp(number % NUMBERS, size) if picture is None else picture
    return Prediction(Frame(picture, index=number, time=number / FPS, source="street"), picture=picture)


def connections() -> list[psutil.Process]:
    """The processes that have the connections to targets."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "publishing.process" in " ".join(process.cmdline()):
                found.append(process)
    return found


class Camera:
    """Writes stamped frames in real time, in a thread, until it is stopped."""

    def __init__(self, sink: PublishSink) -> None:
        self.sink = sink
        self.number = 0
        self.longest = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stopping.wait(max(0.0, began + self.number / FPS - time.monotonic())):
            self.sink.write(prediction(self.number))
            self.number += 1

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@contextmanager
def camera(*addresses: str, **options: Any) -> Iterator[Camera]:
    sink = PublishSink(addresses, **options)
    sink.open(LIVE)
    made = Camera(sink)
    try:
        wait_for(lambda: made.number > 0, 60)
        yield made
    finally:
        made.stop()
        sink.abort()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[RtspRecorder]:
    problem = missing()
    if problem:
        pytest.skip(f"no RTSP server here ({problem}); {NEEDS}")
    with RtspRecorder(tmp_path / "recorded.h264") as made:
        yield made


def follow_each_other(numbers: list[int]) -> bool:
    return all(after == (before + 1) % NUMBERS for before, after in pairwise(numbers))


@pytest.mark.parametrize("kind", ["rtsp", "rtmp", "udp"])
def test_each_frame_arrives_once_in_order_and_with_its_time(kind: str) -> None:
    with Receiver(kind) as receiver, camera(receiver.url) as made:
        receiver.wait_for(40)
        (status,) = made.sink.status
    frames = receiver.frames[:40]
    assert follow_each_other([frame["number"] for frame in frames])
    assert frames[0]["key"]
    known = [(i, frame["time"]) for i, frame in enumerate(frames) if frame["time"] is not None]
    assert len(known) > 30
    late = [time - i / FPS for i, time in known]
    assert max(late) - min(late) < 0.002
    assert (status.kind, status.state, status.dropped, status.connections) == (kind, "sending", 0, 1)
    assert status.sent >= 40


@pytest.mark.parametrize("kind", ["rtsp", "rtmp", "udp"])
def test_hevc(kind: str) -> None:
    with Receiver(kind) as receiver, camera(receiver.url, codec="hevc"):
        receiver.wait_for(10)
    assert follow_each_other([frame["number"] for frame in receiver.frames[:10]])


def test_a_real_rtsp_server_records_what_is_published(recorder: RtspRecorder) -> None:
    with camera(recorder.url):
        wait_for(lambda: len(recorder.numbers()) >= 40, 60)
    assert follow_each_other(recorder.numbers()[:40])


@pytest.mark.skipif("whip" not in av.formats_available, reason="this FFmpeg has no WHIP")
def test_a_webrtc_server_receives_what_is_published_by_whip(tmp_path: Path) -> None:
    with WhipRecorder(tmp_path / "received.h264", "bob", "s3cret") as server:
        with camera(server.url):
            wait_for(lambda: len(server.numbers()) >= 40, 60)
        assert follow_each_other(server.numbers()[:40])
        with camera(server.url.replace("s3cret", "other")) as made:
            wait_for(lambda: made.sink.status[0].state == "away", 60)
            assert "refuses access" in made.sink.status[0].problem


def test_key_frames_come_every_two_seconds_whatever_the_frame_rate() -> None:
    with Receiver("udp") as receiver:
        sink = PublishSink(receiver.url)
        sink.open(LIVE)
        for number in range(0, 400, 20):  # 2.5 frames a second
            sink.write(prediction(number))
            wait_for(lambda: sink.status[0].state == "sending", 60)
            time.sleep(0.02)
        receiver.wait_for(12)
        sink.close()
    keys = [frame["time"] for frame in receiver.frames if frame["key"]]
    assert len(keys) > 2
    assert max(after - before for before, after in pairwise(keys)) == pytest.approx(2.0, abs=0.01)


def test_all_targets_get_the_packets_of_one_encoder(tmp_path: Path) -> None:
    before = encoders()
    with Receiver("udp") as a, Receiver("udp") as b, camera(a.url, b.url, f"hls:{tmp_path}/hls/") as made:
        a.wait_for(30)
        b.wait_for(30)
        assert encoders() - before == 1
        assert len(made.sink.status) == 3
    packets = {frame["number"]: frame["crc"] for frame in a.frames}
    both = [frame for frame in b.frames if frame["number"] in packets]
    assert len(both) >= 20
    assert all(packets[frame["number"]] == frame["crc"] for frame in both)


def encoders() -> int:
    import gc

    from perception.sinks.packet_encoder import PacketEncoder

    return sum(isinstance(each, PacketEncoder) for each in gc.get_objects())


def kill_and_restart(kind: str, times: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that is killed again and again, beside one that stays."""
    with (
        Receiver("udp") as steady,
        Receiver(kind) as receiver,
        camera(receiver.url, steady.url) as made,
        caplog.at_level(logging.WARNING, "perception"),
    ):
        receiver.wait_for(5)
        for life in range(times):
            receiver.stop()
            wait_for(lambda: made.sink.status[0].state == "away", 60)
            receiver.start()
            wait_for(lambda n=life + 2: made.sink.status[0].connections >= n, 120)
            seen = len(receiver.frames)
            receiver.wait_for(seen + 5)
            assert receiver.frames[seen]["key"]
            assert follow_each_other([frame["number"] for frame in receiver.frames[seen:]])
        away, other = made.sink.status
        assert away.dropped > 0
        assert other.dropped == 0
        assert other.connections == 1
    assert follow_each_other([frame["number"] for frame in steady.frames])
    lines = [record.getMessage() for record in caplog.records]
    assert sum("not published, and tried again" in line for line in lines) == times
    assert sum("published again after" in line for line in lines) == times


@pytest.mark.parametrize("kind", ["rtmp", "rtsp"])
def test_a_receiver_that_is_killed_and_restarted(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kill_and_restart(kind, 2, tmp_path, caplog)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.publishing.target.LONGEST_PAUSE_S", 1.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["rtmp", "rtsp"])
def test_a_receiver_that_is_killed_and_restarted_twenty_times(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, short_pauses: None
) -> None:
    kill_and_restart(kind, 20, tmp_path, caplog)


def restart_server(recorder: RtspRecorder, times: int) -> None:
    with camera(recorder.url) as made:
        for life in range(times + 1):
            wait_for(lambda n=life + 1: made.sink.status[0].connections >= n, 120)
            recorded = recorder.size
            wait_for(lambda n=recorded: recorder.size > n + 2000, 60)
            if life < times:
                recorder.stop()
                wait_for(lambda: made.sink.status[0].state == "away", 60)
                recorder.start()
        assert made.sink.status[0].connections == times + 1
    numbers = recorder.numbers()
    gaps = sum(after != (before + 1) % NUMBERS for before, after in pairwise(numbers))
    assert gaps <= 2 * times  # one where it was away, one where a frame was cut in two by the end of a process


def test_a_real_rtsp_server_that_is_killed_and_restarted(recorder: RtspRecorder) -> None:
    restart_server(recorder, 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_rtsp_server_that_is_killed_and_restarted_twenty_times(
    recorder: RtspRecorder, short_pauses: None
) -> None:
    restart_server(recorder, 20)


def test_a_receiver_that_freezes_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.publishing.target.STUCK_S", 1.0)
    rng = np.random.default_rng(0)
    size = (640, 480)
    noise = [rng.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(5)]  # fills every buffer soon
    with Receiver("rtmp") as frozen, Receiver("rtmp") as well:
        sink = PublishSink([frozen.url, well.url])
        sink.open(info(width=size[0], height=size[1], fps=Fraction(FPS), live=True))
        number = 0

        def write_until(condition: Callable[[], bool]) -> None:
            nonlocal number
            deadline = time.monotonic() + 120
            while not condition():
                assert time.monotonic() < deadline, sink.status
                sink.write(prediction(number, picture=noise[number % 5]))
                number += 1
                # no faster than the other one takes, who may not have had the very first
                wait_for(lambda least=number - 2: sink.status[1].sent >= least, 60)

        try:
            sink.write(prediction(0, picture=noise[0]))
            wait_for(lambda: all(status.state == "sending" for status in sink.status), 60)
            write_until(lambda: len(frozen.frames) > 0)
            assert frozen.process is not None
            frozen.process.send_signal(signal.SIGSTOP)
            write_until(lambda: sink.status[0].state != "sending")
            away, steady = sink.status
            assert "took nothing" in away.problem
            assert away.dropped > 0
            assert (steady.dropped, steady.connections) == (0, 1)
        finally:
            sink.abort()


def test_credentials_are_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problem = missing()
    if problem:
        pytest.skip(f"no RTSP server here ({problem}); {NEEDS}")
    with RtspRecorder(tmp_path / "r.h264", "bob", "s3cret") as recorder, caplog.at_level(logging.DEBUG):
        with camera(recorder.url) as made:
            wait_for(lambda: len(recorder.numbers()) >= 5, 60)
            commands = [" ".join(process.cmdline()) for process in connections()]
            assert len(commands) == 1
            assert "s3cret" not in commands[0]
            recorder.stop()
            wait_for(lambda: made.sink.status[0].state == "away", 60)
            assert "s3cret" not in repr(made.sink.status) + made.sink.where
        recorder.start()
        wrong = recorder.url.replace("s3cret", "0ther")
        with camera(wrong) as made:
            wait_for(lambda: made.sink.status[0].state == "away", 60)
            assert "refuses access" in made.sink.status[0].problem
    assert "s3cret" not in caplog.text
    assert "0ther" not in caplog.text
    assert "not published" in caplog.text


def test_nothing_was_published_where_nobody_listens() -> None:
    port = free_port()
    sink = open_sink(f"rtmp://bob:s3cret@127.0.0.1:{port}/live/key")
    sink.open(LIVE)
    sink.write(prediction(0))
    wait_for(lambda: sink.status[0].state == "away", 60)
    with pytest.raises(SinkError, match="nothing was published: the connection was refused") as caught:
        sink.close()
    assert str(caught.value).startswith(f"rtmp://127.0.0.1:{port}/...: ")


def test_a_host_that_does_not_answer_ends_with_the_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.sinks.publish.ENDING_S", 0.2)
    import socket

    with socket.socket() as silent:  # takes the connection and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        sink = PublishSink(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live")
        sink.open(LIVE)
        sink.write(prediction(0))
        wait_for(connections, 60)
        with pytest.raises(SinkError, match="nothing was published: no answer in time"):
            sink.close()
        assert not connections()


def test_a_recording_is_published_in_real_time_from_its_first_frame() -> None:
    with Receiver("rtmp") as receiver:
        sink = PublishSink(receiver.url)
        sink.open(RECORDED)
        began = time.monotonic()
        for number in range(50):
            sink.write(prediction(number))
        took = time.monotonic() - began
        sink.close()
        receiver.wait_for(50)
    assert took >= 49 / FPS - 0.05
    assert [frame["number"] for frame in receiver.frames] == [*range(50)]


def test_times_are_stretched_where_frames_come_late_and_long_pauses_are_cut() -> None:
    now = [100.0]
    real = RealTime(0.0, clock=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s))
    assert real.wait(1.0) == pytest.approx(1.0)
    assert now[0] == pytest.approx(101.0)
    now[0] += 2.0  # the network took two seconds
    assert real.wait(1.1) == pytest.approx(3.0 - 0.25)  # as late as is let pass
    assert real.wait(1.5) == pytest.approx(3.15)
    began = now[0]
    assert real.wait(61.5) == pytest.approx(13.15)
    assert now[0] - began == pytest.approx(10.0)
    assert real.wait(61.6) == pytest.approx(13.25)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://user:s3cret@example.org/live", "cannot publish to http://; known are rtsp://"),
        ("rtsp://", "no host"),
        ("rtsp://user:s3#cret@host/live", "not a URL"),
        ("udp://:5000", "give the host and the port"),
        ("udp://host", "give the host and the port"),
        ("hls:", "HLS is written into a folder"),
        ("hls://host/x", "HLS is written into a folder"),
    ],
)
def test_addresses_that_cannot_be_published_to(address: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        open_sink(address)
    assert "s3" not in str(caught.value)


def test_options_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"h264.*not by vp9"):
        open_sink("udp://127.0.0.1:5000", codec="vp9")
    with pytest.raises(UsageError, match="no option quality") as caught:
        open_sink("rtsp://bob:s3cret@127.0.0.1/a", quality=3)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(UsageError, match="once"):
        PublishSink(["udp://127.0.0.1:5000", "udp://127.0.0.1:5000"])


def test_srt_says_what_this_ffmpeg_lacks_or_works() -> None:
    import ctypes

    found = [*Path(av.__file__).parents[1].glob("av.libs/libavformat*")]
    if not found:
        pytest.skip("FFmpeg's library is elsewhere, so nothing else tells which protocols it has")
    library = ctypes.CDLL(str(found[0]))
    library.avio_enum_protocols.restype = ctypes.c_char_p
    library.avio_enum_protocols.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int]
    names, state = [], ctypes.c_void_p()
    while name := library.avio_enum_protocols(ctypes.byref(state), 1):
        names.append(name.decode())
    if "srt" in names:
        open_sink("srt://127.0.0.1:9000?mode=caller")
    else:
        with pytest.raises(UsageError, match="without the protocol SRT; publish to another of rtsp://"):
            open_sink("srt://127.0.0.1:9000?passphrase=s3cret")


def test_a_process_that_is_killed_is_replaced() -> None:
    with Receiver("udp") as receiver, camera(receiver.url) as made:
        receiver.wait_for(5)
        for process in connections():
            process.kill()
        wait_for(lambda: made.sink.status[0].connections == 2, 60)
        receiver.wait_for(len(receiver.frames) + 5)
