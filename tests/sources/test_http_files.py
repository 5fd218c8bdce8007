"""Addresses on web servers: finite files lose nothing, whatever they tell; live ones last as long as the wall says."""

import contextlib
import threading
import time

import av
import cv2
import numpy as np
import pytest

from perception.errors import SourceError
from perception.sinks import open_sink
from perception.sources import open_source
from perception.types import Prediction
from tests.media import http_folder, make_video, read_stamp, stamp, tcp_server


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(4096)
        if not more:
            return
        data += more


def without_range(path):
    """Answers every request with the whole file and its length."""
    data = path.read_bytes()

    def answer(connection, ended):
        read_request(connection)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: video/x\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + data)

    return answer


def endless_webm(path):
    """As a browser's MediaRecorder writes it: with no duration and no index."""
    return make_video(path, frames=100, codec="libvpx", keyint=25, fmt="webm", container={"live": "1"})


MAKERS = {
    "recorder.webm": endless_webm,
    "v.ts": lambda path: make_video(path, frames=100, keyint=25),
    "v.mkv": lambda path: make_video(path, frames=100, keyint=25, container={"live": "1"}),
    "v.h264": lambda path: make_video(path, frames=100, keyint=25, options={"bf": "0"}),
    "v.mjpeg": lambda path: make_video(path, frames=100, codec="mjpeg", pix_fmt="yuvj420p"),
    "v.flv": lambda path: make_video(path, frames=100, keyint=25, container={"flvflags": "no_duration_filesize"}),
    "v.mp4": lambda path: make_video(path, frames=100, keyint=25, container={"movflags": "frag_keyframe+empty_moov"}),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_known_length_makes_a_file(tmp_path, name, ranges):
    path = MAKERS[name](tmp_path / name)
    with contextlib.ExitStack() as stack:
        if ranges:
            url = f"{stack.enter_context(http_folder(tmp_path))}/{name}"
        else:
            url = f"http://127.0.0.1:{stack.enter_context(tcp_server(without_range(path)))}/{name}"
        with open_source(url, timeout=5) as source:
            assert not source.info.live
            frames = []
            for frame in source:
                frames.append(frame)
                if len(frames) == 10:
                    time.sleep(0.2)  # a reader that does not wait would have gone on
            assert source.dropped == 0
        assert [read_stamp(f.image) for f in frames] == list(range(100))
        if name in ("v.ts", "recorder.webm", "v.mp4"):
            with open_source(url, timeout=5, start=2.0, max_frames=5) as source:
                assert [read_stamp(f.image) for f in source] == [50, 51, 52, 53, 54]


def jpegs(count):
    return [cv2.imencode(".jpg", stamp(i, (160, 96)))[1].tobytes() for i in range(count)]


def camera(mode, fps, count=1000):
    """A Motion JPEG camera: correct, or with one of the faults of cheap ones."""
    pictures = jpegs(min(count, 1000))

    def answer(connection, ended):
        read_request(connection)
        boundary = {"dashes": "--frame", "quoted": '"frame"'}.get(mode, "frame")
        kind = "image/jpg" if mode == "jpg" else "image/jpeg"
        length = "Content-Length: 2147483647\r\n" if mode == "long" else ""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary={boundary}\r\n{length}\r\n"
        connection.sendall(head.encode())
        began = time.monotonic()
        for i, picture in enumerate(pictures):
            size = "" if mode == "nolength" else f"Content-Length: {len(picture)}\r\n"
            part = f"Content-Type: {kind}\r\n{size}\r\n".encode() + picture
            connection.sendall(part + b"\r\n--frame\r\n" if mode == "esp32" else b"--frame\r\n" + part + b"\r\n")
            if ended.wait(max(0.0, began + (i + 1) / fps - time.monotonic())):
                return

    return answer


def recorded(url, out, seconds, **options):
    """Times of the frames, when each came, and the length of what is recorded."""
    frames = []
    with open_source(url, timeout=5, **options) as source, open_sink(out, overwrite=True) as sink:
        sink.open(source.info)
        for frame in source:
            frames.append((frame.time, frame.arrived, read_stamp(frame.image)))
            sink.write(Prediction(frame))
            if frame.arrived - frames[0][1] > seconds:
                break
    with av.open(str(out)) as container:
        return np.array(frames), container.duration / 1e6


@pytest.mark.parametrize(
    ("mode", "fps"),
    [("plain", 5), ("plain", 50), *((m, 12) for m in ("esp32", "dashes", "quoted", "nolength", "jpg", "long"))],
)
def test_motion_jpeg_lasts_as_long_as_the_wall_says(tmp_path, mode, fps):
    with tcp_server(camera(mode, fps)) as port:
        frames, length = recorded(f"http://127.0.0.1:{port}/video", tmp_path / "o.mp4", 2.0)
    times, arrived, numbers = frames.T
    wall = arrived[-1] - arrived[0]
    assert np.all(np.diff(times) > 0)
    assert np.all(np.diff(numbers) > 0)
    assert times[-1] - times[0] == pytest.approx(wall, abs=0.4)
    assert wall - 0.4 <= length <= wall + 1.0


def test_a_snapshot_address_is_read_again_and_again(tmp_path):
    asked, pictures = [], jpegs(20)

    def answer(connection, ended):
        read_request(connection)
        asked.append(time.monotonic())
        picture = pictures[len(asked) - 1]
        if len(asked) == 4:
            connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return
        head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        connection.sendall(head.encode() + picture)

    with tcp_server(answer) as port:
        frames, _ = recorded(f"http://bob:s3cret@127.0.0.1:{port}/snap.jpg", tmp_path / "o.mp4", 1.2, fps=5)
    times, arrived, numbers = frames.T
    assert len(frames) >= 4
    assert np.all(np.diff(numbers) > 0)
    assert times[-1] - times[0] == pytest.approx(arrived[-1] - arrived[0], abs=0.2)
    # a camera is not asked more often than said; on average, for a busy machine may read one request late
    assert asked[-1] - asked[1] > 0.15 * (len(asked) - 2)


def test_a_snapshot_camera_that_is_gone_is_an_error(tmp_path):
    picture = jpegs(1)[0]
    answered = threading.Event()

    def answer(connection, ended):
        read_request(connection)
        if not answered.is_set():
            answered.set()
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture)
        elif not asked_probe.is_set():
            asked_probe.set()
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture)
        else:
            connection.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    asked_probe = threading.Event()
    with tcp_server(answer) as port, pytest.raises(SourceError, match="error"):
        for _ in open_source(f"http://127.0.0.1:{port}/snap.jpg", timeout=0.5, fps=10):
            pass


def test_a_picture_that_somebody_else_names_is_refused_with_advice(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpegs(1)[0])
    with http_folder(tmp_path) as base, pytest.raises(SourceError, match=r"picture .*give the address of its stream"):
        open_source(f"{base}/a.jpg", timeout=5, confined=True)
