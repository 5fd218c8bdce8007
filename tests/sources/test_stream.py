"""Network streams against real servers on this machine: good ones, slow ones, silent ones and ones that hang up."""

import logging
import socket
import threading
import time
from fractions import Fraction
from itertools import pairwise

import av
import pytest

from perception.errors import SourceError
from perception.sources import open_source
from perception.sources.latest import LatestReader
from perception.types import Frame
from tests.media import http_folder, make_video, read_stamp, stamp, tcp_server
from tests.server.waiting import wait_for

HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n"


def reader_threads():
    return [t for t in threading.enumerate() if t.name.startswith(("read ", "connect")) and t.is_alive()]


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind():
    before = set(reader_threads())
    yield
    for thread in set(reader_threads()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread.name


def silent(connection, ended):
    ended.wait()


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(4096)
        if not more:
            return
        data += more


def playing(path, *, pace=0.0, loop=False, stall_at=None, stalled=None):
    """Answers with an MPEG-TS file as a stream of unknown length: one that plays on, stalls (and says so), or ends."""
    data = path.read_bytes()

    def answer(connection, ended):
        read_request(connection)
        connection.sendall(HEADER)
        at = 0
        while not ended.is_set():
            part = data[at : at + 188 * 8]
            if not part:
                if not loop:
                    return
                at = 0
                continue
            connection.sendall(part)
            at += len(part)
            if stall_at is not None and at >= stall_at * len(data):
                if stalled is not None:
                    stalled.set()
                ended.wait()
            if pace:
                ended.wait(pace)

    return answer


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp"])
def test_a_server_that_never_answers(scheme):
    with tcp_server(silent) as port, pytest.raises(SourceError) as caught:
        open_source(f"{scheme}://bob:s3cret@127.0.0.1:{port}/live", timeout=0.4)
    assert "no answer in 0.4 s" in str(caught.value)
    assert str(caught.value).startswith(f"{scheme}://127.0.0.1:{port}/...: ")


def test_no_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for scheme in ("http", "rtsp", "rtmp"):
        with pytest.raises(SourceError, match="refused"):
            open_source(f"{scheme}://127.0.0.1:{port}/x", timeout=2)


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "rtmp"])
def test_a_host_that_nobody_knows(scheme):
    with pytest.raises(SourceError) as caught:  # RFC 6761: nothing ends in .invalid
        open_source(f"{scheme}://bob:s3cret@no-such-camera.invalid/live", timeout=5)
    assert "the host no-such-camera.invalid cannot be found" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_nothing_comes_over_udp():
    with pytest.raises(SourceError, match=r"no answer in 0\.5 s"):
        open_source("udp://127.0.0.1:45871", timeout=0.5)


def test_drops_of_data_do_not_prolong_the_wait(tmp_path):
    def drip(connection, ended):
        read_request(connection)
        connection.sendall(HEADER)
        while not ended.wait(0.05):
            connection.sendall(b"\x47")

    with tcp_server(drip) as port, pytest.raises(SourceError):
        open_source(f"http://127.0.0.1:{port}/v.ts", timeout=0.5)


def test_the_server_sends_something_else(tmp_path):
    (tmp_path / "page.html").write_text("<html>Please log in.</html>" * 100)
    with http_folder(tmp_path) as base:
        with pytest.raises(SourceError, match="not a video"):
            open_source(f"{base}/page.html", timeout=3)
        with pytest.raises(SourceError, match="404"):
            open_source(f"{base}/none.mp4", timeout=3)


@pytest.mark.parametrize(("status", "reason"), [("401 Unauthorized", "refuses access"), ("403 Forbidden", "refuses"),
                                                ("500 Oops", "error")])  # fmt: skip
def test_refused_with_no_secret_in_sight(status, reason, caplog):
    def refuse(connection, ended):
        read_request(connection)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with caplog.at_level(logging.DEBUG), tcp_server(refuse) as port, pytest.raises(SourceError, match=reason) as caught:
        open_source(f"http://bob:s3cret@127.0.0.1:{port}/v.mp4?token=t0ps3cret", timeout=3)
    error = caught.value
    assert "s3cret" not in f"{error} {error.where} {error.__cause__!r} {caplog.text}"


def test_a_file_on_a_server_loses_nothing(tmp_path):
    make_video(tmp_path / "v.mp4", frames=60, keyint=10, container={"movflags": "faststart"})
    with http_folder(tmp_path) as base, open_source(f"{base}/v.mp4", timeout=5) as source:
        time.sleep(0.2)
        frames = list(source)
        assert [read_stamp(f.image) for f in frames] == list(range(60))
        assert not source.info.live
        assert (source.info.kind, source.info.frame_count, source.info.path) == ("stream", 60, None)
    with http_folder(tmp_path) as base, open_source(f"{base}/v.mp4", start=1.0, max_frames=3) as source:
        assert [read_stamp(f.image) for f in source] == [25, 26, 27]


def test_hls_over_http(tmp_path):
    for i in range(2):
        make_video(tmp_path / f"{i}.ts", times=[i + j / 25 for j in range(25)])
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
    lines += ["#EXTINF:1.0,", "0.ts", "#EXTINF:1.0,", "1.ts", "#EXT-X-ENDLIST"]
    (tmp_path / "list.m3u8").write_text("\n".join(lines) + "\n")
    with http_folder(tmp_path) as base, open_source(f"{base}/list.m3u8", timeout=5) as source:
        assert [read_stamp(f.image) for f in source] == list(range(25)) * 2
        assert not source.info.live


def test_a_playlist_cannot_reach_local_files(tmp_path):
    (tmp_path / "served").mkdir()
    secret = make_video(tmp_path / "secret.ts", frames=25)
    for name, target in (("a", f"file:{secret}"), ("b", f"file://{secret}"), ("c", str(secret))):
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{target}\n#EXT-X-ENDLIST\n"
        (tmp_path / "served" / f"{name}.m3u8").write_text(text)
        with http_folder(tmp_path / "served") as base, pytest.raises(SourceError):
            list(open_source(f"{base}/{name}.m3u8", timeout=2))


def test_who_is_confined_goes_nowhere_else(tmp_path):
    make_video(tmp_path / "v.mp4", frames=5, container={"movflags": "faststart"})
    make_video(tmp_path / "0.ts", frames=25)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n0.ts\n#EXT-X-ENDLIST\n")
    with http_folder(tmp_path) as base:

        def elsewhere(connection, ended):
            read_request(connection)
            connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {base}/v.mp4\r\nContent-Length: 0\r\n\r\n".encode())

        with tcp_server(elsewhere) as port:
            url = f"http://127.0.0.1:{port}/v.mp4"
            with open_source(url, timeout=5) as source:
                assert len(list(source)) == 5
            with pytest.raises(SourceError):
                open_source(url, timeout=5, confined=True)
        with open_source(f"{base}/list.m3u8", timeout=5) as source:
            assert len(list(source)) == 25
        with pytest.raises(SourceError):
            open_source(f"{base}/list.m3u8", timeout=5, confined=True)
        with open_source(f"{base}/v.mp4", timeout=5, confined=True) as source:
            assert len(list(source)) == 5


def test_the_name_of_a_host_that_was_looked_up_is_not_looked_up_again(tmp_path):
    data = make_video(tmp_path / "v.mp4", frames=5, container={"movflags": "faststart"}).read_bytes()
    heads = []

    def answer(connection, ended):
        heads.append(connection.recv(4096).decode())
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        ended.wait()

    with tcp_server(answer) as port:
        url = f"http://camera.invalid:{port}/v.mp4"
        with open_source(url, timeout=5, confined=True, addresses=["127.0.0.1"]) as source:
            assert len(list(source)) == 5
    assert [line for line in heads[0].splitlines() if line.startswith("Host:")] == [f"Host: camera.invalid:{port}"]


def test_a_live_stream_keeps_the_newest_and_counts_the_rest(tmp_path):
    path = make_video(tmp_path / "v.ts", frames=200, keyint=10, fps=50)
    with tcp_server(playing(path, pace=0.05, loop=True)) as port:
        source = open_source(f"http://127.0.0.1:{port}/v.ts", timeout=5)
        with source:
            assert source.info.live
            assert source.info.kind == "stream"
            taken = []
            while source.dropped < 20 or len(taken) < 5:
                taken.append(next(source))
                dropped = source.dropped
                wait_for(lambda: source.dropped > dropped)  # noqa: B023 (called here)
        assert list(source) == []
    indices = [f.index for f in taken]
    assert indices == sorted(set(indices))
    assert max(b - a for a, b in pairwise(indices)) > 1
    assert taken[0].time >= 0
    assert all(b.arrived > a.arrived and b.time > a.time for a, b in pairwise(taken))


def test_every_frame_is_taken_or_dropped(tmp_path):
    path = make_video(tmp_path / "v.ts", frames=120, keyint=10)
    with tcp_server(playing(path, pace=0.002)) as port, open_source(f"http://127.0.0.1:{port}/v", timeout=5) as source:
        next(source)
        wait_for(lambda: source.dropped > 0)
        assert 1 + len(list(source)) + source.dropped == 120


def test_parts_of_a_live_stream(tmp_path):
    path = make_video(tmp_path / "v.ts", times=[3600 + i / 25 for i in range(100)], keyint=10)
    with tcp_server(playing(path, pace=0.01, loop=True)) as port:
        with open_source(f"http://127.0.0.1:{port}/v", timeout=5, max_frames=5) as source:
            frames = list(source)
            assert len(frames) == 5
            assert frames[0].time < 3600  # from the first frame on, whatever clock the server has
        with open_source(f"http://127.0.0.1:{port}/v", timeout=5, start=0.4, duration=1.0, every=5) as source:
            frames = list(source)
        assert frames
        assert all(0.4 <= f.time < 1.4 and f.index % 5 == 0 for f in frames)


def test_a_live_stream_that_falls_silent(tmp_path):
    path = make_video(tmp_path / "v.ts", frames=300, keyint=10)
    with tcp_server(playing(path, stall_at=0.5)) as port:
        url = f"http://bob:s3cret@127.0.0.1:{port}/v.ts"
        with open_source(url, timeout=1.0) as source:
            seen = 0
            with pytest.raises(SourceError, match="no data for 1 s") as caught:
                for _ in source:
                    seen += 1
            assert seen >= 1
    assert "s3cret" not in str(caught.value)


def test_closing_a_stalled_stream_does_not_hang(tmp_path):
    path = make_video(tmp_path / "v.ts", frames=300, keyint=10)
    stalled, taken = threading.Event(), []
    with tcp_server(playing(path, stall_at=0.5, stalled=stalled)) as port:
        source = open_source(f"http://127.0.0.1:{port}/v.ts", timeout=100)
        waiting = threading.Thread(target=lambda: taken.extend(source))
        waiting.start()
        assert stalled.wait(30)
        wait_for(lambda: taken)
        source.close()
        waiting.join(30)  # much less than what the source itself would wait for
        assert not waiting.is_alive()


def test_a_connection_that_breaks_is_an_error(tmp_path):
    data = make_video(tmp_path / "v.mp4", frames=200, container={"movflags": "faststart"}).read_bytes()

    def hang_up(connection, ended):
        read_request(connection)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[: int(len(data) * 0.7)])
        # Reset instead of an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    seen = 0
    with tcp_server(hang_up) as port, pytest.raises(SourceError):
        for _ in open_source(f"http://127.0.0.1:{port}/v.mp4", timeout=3):
            seen += 1


def test_a_real_udp_stream():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ended = threading.Event()

    def send():
        with av.open(f"udp://127.0.0.1:{port}?pkt_size=1316", "w", format="mpegts") as out:
            stream = out.add_stream("libx264", rate=50, options={"tune": "zerolatency", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
            stream.codec_context.gop_size = 5
            for i in range(2000):
                if ended.wait(0.01):
                    break
                frame = av.VideoFrame.from_ndarray(stamp(i % 1000), "bgr24").reformat(format="yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, 50)
                out.mux(stream.encode(frame))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        with open_source(f"udp://127.0.0.1:{port}", timeout=10, max_frames=20, confined=True) as source:
            assert source.info.live
            frames = list(source)
    finally:
        ended.set()
        sender.join(10)
    assert len(frames) == 20
    numbers = [read_stamp(f.image) for f in frames]
    assert numbers == sorted(numbers)
    # What the picture shows moves on as its time stamp does.
    shown = (numbers[-1] - numbers[0]) / 50
    assert frames[-1].time - frames[0].time == pytest.approx(shown, abs=0.1)


def fake_frames(count, fail=None):
    def produce(stopping):
        for i in range(count):
            if i == fail:
                raise ZeroDivisionError("the codec lost its mind")
            yield Frame(stamp(i), index=i)

    return produce


def test_reader_hands_out_the_last_frame_before_it_reports_an_error():
    reader = LatestReader(fake_frames(10, fail=3), "camera x")
    reader.join()
    assert reader.take().index == 2
    with pytest.raises(SourceError, match=r"camera x: reading failed: ZeroDivisionError: the codec lost its mind"):
        reader.take()
    assert reader.dropped == 2


def test_reader_ends_quietly():
    reader = LatestReader(fake_frames(5), "x")
    reader.join()
    assert reader.take().index == 4
    assert reader.take() is None
    assert reader.take() is None
    assert reader.dropped == 4


def test_reader_that_waits_is_woken_by_stop():
    def one(stopping):
        yield Frame(stamp(1), index=1)
        stopping.wait(60)

    reader = LatestReader(one, "x")
    taken = []
    thread = threading.Thread(target=lambda: [taken.append(f) for f in iter(reader.take, None)])
    thread.start()
    wait_for(lambda: taken)  # and now it waits for another one
    reader.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert reader.join()
    assert len(taken) == 1


def test_reader_times_out():
    def nothing(stopping):
        stopping.wait(60)
        yield None

    reader = LatestReader(nothing, "x")
    with pytest.raises(SourceError, match=r"no frame arrived within 0\.1 s"):
        reader.take(0.1)
    reader.stop()


def test_reader_waits_for_a_wanted_frame_as_long_as_any_come():
    patience = 0.5

    def produce(stopping):
        began = time.monotonic()
        while time.monotonic() < began + 2 * patience:  # others come, a hundred for each time it would wait
            stopping.wait(patience / 100)
            yield None
        yield Frame(stamp(7), index=7)
        stopping.wait(60)

    reader = LatestReader(produce, "x")
    assert reader.take(patience).index == 7
    with pytest.raises(SourceError, match=r"no frame arrived within 0\.1 s"):
        reader.take(0.1)
    assert reader.dropped == 0
    reader.stop()
