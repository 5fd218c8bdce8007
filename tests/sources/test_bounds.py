"""How large the frames of a source may be, whatever kind it is, and that opening one can be given up."""

import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from contextlib import contextmanager
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from perception.common.bounds import PLAUSIBLE_PIXELS
from perception.errors import SourceError
from perception.sources import Bounds, camera, csi, open_source
from tests.media import http_folder, make_image, make_video, stamp, tcp_server
from tests.rtsp import rtsp_server
from tests.server.waiting import wait_for
from tests.sources.test_heif import CASES, TILE, box, full, make_grid
from tests.sources.test_http_files import camera as motion_jpeg
from tests.sources.test_http_files import read_request


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """One of each kind, all of 80x48 pixels."""
    video = make_video(tmp_path / "v.mp4", frames=10, container={"movflags": "faststart"})
    make_video(tmp_path / "v.ts", frames=50)
    make_image(tmp_path / "i.png")
    make_image(tmp_path / "i.jpg")

    def device(*args):
        sizes = {cv2.CAP_PROP_FRAME_WIDTH: 80.0, cv2.CAP_PROP_FRAME_HEIGHT: 48.0}
        return SimpleNamespace(
            read=lambda: (True, np.zeros((48, 80, 3), np.uint8)),
            get=lambda at: sizes.get(at, 25.0),
            release=lambda: None,
        )

    monkeypatch.setattr(camera, "open_device", device)  # the only part that is not there
    monkeypatch.setattr(camera.CameraSource, "_check_exists", lambda self: None)
    with http_folder(tmp_path) as base, rtsp_server() as server:
        yield {
            "file": str(video),
            "transport stream": str(tmp_path / "v.ts"),
            "png": str(tmp_path / "i.png"),
            "jpeg": str(tmp_path / "i.jpg"),
            "folder": str(tmp_path),
            "http file": f"{base}/v.mp4",
            "http stream": f"{base}/v.ts",
            "rtsp": f"rtsp://127.0.0.1:{server.port}/live",
            "synthetic": "synthetic:?size=80x48",
            "live synthetic": "synthetic:?size=80x48&live=1",
            "camera": "0",
        }


KINDS = ["file", "transport stream", "png", "jpeg", "folder", "http file", "http stream", "rtsp", "synthetic",
         "live synthetic", "camera"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pixels(sources, kind):
    for confined in (False, True):
        bounds = Bounds(80 * 48)
        with open_source(sources[kind], timeout=10, confined=confined, bounds=bounds) as source:
            assert next(source).width == 80
        wait_for(lambda b=bounds: not b.busy)
        bounds = Bounds(80 * 48 - 1)
        with pytest.raises(SourceError, match="80x48 is too large: at most 3839 pixels"):
            open_source(sources[kind], timeout=10, confined=confined, bounds=bounds)
        wait_for(lambda b=bounds: not b.busy)


def test_csi_cameras(monkeypatch):
    monkeypatch.setattr(csi, "has_gstreamer", lambda: True)
    with pytest.raises(SourceError, match="1280x720 is too large"):
        open_source("csi://0?size=1280x720", bounds=Bounds(1280 * 720 - 1))


def test_a_picture_that_is_a_bomb_is_not_decoded(tmp_path):
    """A few kilobytes that would be 300 MB: its header is enough."""
    path = tmp_path / "bomb.png"
    cv2.imwrite(str(path), np.zeros((10_000, 10_000, 3), np.uint8))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="10000x10000 is too large"):
            open_source(path, bounds=Bounds(1_000_000))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_pixels_that_are_not_square_count_as_they_are_shown(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(8)
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame(80, 48, "yuv420p")))
        out.mux(stream.encode(None))
    with open_source(path, bounds=Bounds(640 * 48)) as source:
        assert next(source).width == 640
    with pytest.raises(SourceError, match="640x48 is too large"):
        open_source(path, bounds=Bounds(640 * 48 - 1))


def test_a_stream_that_grows_later_is_no_way_around(tmp_path):
    small, large = (
        make_video(tmp_path / "a.ts", frames=20),
        make_video(tmp_path / "b.ts", frames=20, size_wh=(320, 240)),
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with open_source(joined) as source:
        assert {frame.width for frame in source} == {80, 320}
    with open_source(joined, bounds=Bounds(80 * 48)) as source:  # far too large: no memory is taken for it
        assert {frame.width for frame in source} == {80}
        assert source.corrupt > 0
    grows = pytest.raises(SourceError, match="320x240 is too large")
    with open_source(joined, bounds=Bounds(320 * 240 - 1)) as source, grows:
        while True:
            assert next(source).width == 80


def test_giving_up_a_drawn_source():
    bounds = Bounds()
    bounds.cancel()
    with pytest.raises(SourceError, match="closed while it was being opened"):
        open_source("synthetic:?size=64x48", bounds=bounds)


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp"])
def test_giving_up_a_server_that_never_answers(scheme):
    asked = threading.Event()
    errors = []

    def silent(connection, ended):
        connection.recv(4096)
        asked.set()
        ended.wait()

    def open_it(url, bounds):
        try:
            open_source(url, timeout=60, bounds=bounds)
        except SourceError as error:
            errors.append(str(error))

    with tcp_server(silent) as port:
        bounds = Bounds()
        opening = threading.Thread(target=open_it, args=(f"{scheme}://127.0.0.1:{port}/x", bounds))
        opening.start()
        assert asked.wait(30)
        assert bounds.busy
        bounds.cancel()
        opening.join(30)  # of a timeout of two minutes
        assert not opening.is_alive()
        assert errors == [f"{scheme}://127.0.0.1:{port}/...: closed while it was being opened"]
        assert bounds.busy  # FFmpeg's thread is still in there, and counts
    wait_for(lambda: not bounds.busy)  # the server has hung up


@contextmanager
def undecodable():
    """A camera that sends packets without end of which no picture can be made."""
    with rtsp_server() as server:
        sets = [unit for unit in server.pictures[0] if unit[0] & 31 in (7, 8)]
        server.pictures = [sets, *[[b"\x41\x98\x06\x48" + b"\x80" * 40]] * 200]  # slices of a set that is not there
        yield f"rtsp://127.0.0.1:{server.port}/live", server


@pytest.mark.parametrize("confined", [False, True])
def test_a_stream_in_which_nothing_can_be_decoded_ends(confined):
    bounds = Bounds()
    with undecodable() as (url, _), pytest.raises(SourceError, match=r"no picture in 1 s: .* packets came"):
        open_source(url, timeout=1, confined=confined, bounds=bounds)
    wait_for(lambda: not bounds.busy)


def test_giving_up_a_stream_in_which_nothing_can_be_decoded():
    bounds = Bounds()
    errors = []

    def open_it(url):
        try:
            open_source(url, timeout=600, bounds=bounds)
        except SourceError as error:
            errors.append(error)

    with undecodable() as (url, server):
        opening = threading.Thread(target=open_it, args=(url,), daemon=True)
        opening.start()
        wait_for(lambda: "PLAY" in server.methods())
        bounds.cancel()
        opening.join(30)
        assert not opening.is_alive()
        assert len(errors) == 1
    wait_for(lambda: not bounds.busy)


def test_pictures_in_tiles(tmp_path):
    phone = CASES / "grid.heic"
    with open_source(phone, bounds=Bounds(1280 * 960)) as source:
        assert next(source).width == 1280
    with pytest.raises(SourceError, match="1280x960 is too large"):
        open_source(phone, bounds=Bounds(1280 * 960 - 1))
    # A tile that is larger than the picture it is said to be part of.
    path, _ = make_grid(tmp_path, 1, 1, (40, 30))
    with open_source(path, bounds=Bounds(TILE * TILE)) as source:
        assert next(source).width == 40
    with pytest.raises(SourceError, match=f"{TILE}x{TILE} is too large"):
        open_source(path, bounds=Bounds(TILE * TILE - 1))


def test_tiles_that_nobody_would_see_are_not_decoded(tmp_path):
    path, _ = make_grid(tmp_path, 1, 3, (TILE, TILE))
    with pytest.raises(SourceError, match="not an image that can be read"):
        open_source(path)


def test_a_picture_whose_description_is_a_bomb_is_not_gathered(tmp_path):
    """Hundreds of extents, each of which is the whole file."""
    count = 300
    meta = full(
        b"meta",
        0,
        full(b"pitm", 0, struct.pack(">H", 1)),
        full(b"iinf", 0, struct.pack(">H", 1), full(b"infe", 2, struct.pack(">HH", 1, 0), b"grid", b"\0")),
        full(b"iloc", 1, b"\x44\x00", struct.pack(">HHHHH", 1, 1, 0, 0, count), bytes(8) * count),
        full(b"iref", 0, box(b"dimg", struct.pack(">HHH", 1, 1, 2))),
        box(b"iprp", box(b"ipco")),
    )
    path = tmp_path / "bomb.heic"
    path.write_bytes(box(b"ftyp", b"heic\0\0\0\0mif1heic") + meta + box(b"mdat", bytes(1 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="not an image that can be read"):
            open_source(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def snapshots(sizes_wh):
    """A camera that gives a picture a request; where there is no more, it says nothing."""
    left = [cv2.imencode(".jpg", stamp(1, size))[1].tobytes() for size in sizes_wh]

    def answer(connection, ended):
        read_request(connection)
        if not left:
            ended.wait()
            return
        picture = left.pop(0)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture)

    return answer


def test_snapshots():
    small, large = (160, 96), (320, 240)
    bounds = Bounds(160 * 96)
    with tcp_server(snapshots([small] * 50)) as port:
        with open_source(f"http://127.0.0.1:{port}/a.jpg", timeout=10, bounds=bounds) as source:
            assert next(source).width == 160
            assert bounds.busy
        wait_for(lambda: not bounds.busy)
        with pytest.raises(SourceError, match="160x96 is too large"):
            open_source(f"http://127.0.0.1:{port}/a.jpg", timeout=10, bounds=Bounds(160 * 96 - 1))
    with (
        tcp_server(snapshots([small, small, *[large] * 500])) as port,
        open_source(f"http://127.0.0.1:{port}/a.jpg", timeout=0.5, fps=20, bounds=bounds) as source,
        pytest.raises(SourceError, match="320x240 is too large"),
    ):
        for frame in source:
            assert frame.width == 160


def test_giving_up_a_camera_of_snapshots_that_falls_silent():
    errors = []
    bounds = Bounds()

    def open_it(url):
        try:
            open_source(url, timeout=60, bounds=bounds)
        except SourceError as error:
            errors.append(str(error))

    asked = threading.Event()
    inner = snapshots([(160, 96)])

    def answer(connection, ended):
        if asked.is_set():
            second.set()
        asked.set()
        inner(connection, ended)

    second = threading.Event()
    with tcp_server(answer) as port:
        opening = threading.Thread(target=open_it, args=(f"http://127.0.0.1:{port}/a.jpg",), daemon=True)
        opening.start()
        assert second.wait(30)  # the first request told that it is a picture
        bounds.cancel()
        opening.join(30)
        assert not opening.is_alive()
        assert errors == [f"http://127.0.0.1:{port}/...: closed while it was being opened"]
    wait_for(lambda: not bounds.busy)


@pytest.mark.parametrize("confined", [False, True])
@pytest.mark.parametrize("mode", ["plain", "esp32"])
def test_motion_jpeg_also_where_it_is_read_in_another_way(mode, confined):
    with tcp_server(motion_jpeg(mode, 20, 100)) as port:
        url = f"http://127.0.0.1:{port}/video"
        with open_source(url, timeout=10, confined=confined, bounds=Bounds(160 * 96)) as source:
            assert next(source).width == 160
        with pytest.raises(SourceError, match="160x96 is too large"):
            open_source(url, timeout=10, confined=confined, bounds=Bounds(160 * 96 - 1))


@pytest.mark.parametrize("confined", [False, True])
def test_a_file_without_end_in_which_nothing_can_be_decoded_ends(tmp_path, confined):
    good, bad = make_video(tmp_path / "good.ts", frames=100), tmp_path / "bad.ts"
    with av.open(str(good)) as read, av.open(str(bad), "w") as out:
        stream = out.add_stream_from_template(read.streams.video[0])
        sets = bytes(read.streams.video[0].codec_context.extradata)
        for packet in read.demux(video=0):
            if packet.size:  # slices of a set that is not there
                unit = av.Packet(sets + b"\0\0\0\1\x41\x98\x06\x48" + b"\x80" * 40)
                unit.pts, unit.dts, unit.time_base, unit.stream = packet.dts, packet.dts, packet.time_base, stream
                out.mux(unit)
    data = bad.read_bytes()

    def answer(connection, ended):
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nContent-Length: 1000000000000\r\n\r\n")
        while not ended.is_set():
            connection.sendall(data)

    bounds = Bounds()
    with tcp_server(answer) as port, pytest.raises(SourceError, match="no picture can be decoded from this stream"):
        open_source(f"http://127.0.0.1:{port}/v.ts", timeout=1, confined=confined, bounds=bounds)
    wait_for(lambda: not bounds.busy)


def test_frames_that_nobody_takes_are_no_way_around(tmp_path):
    """They are decoded, held to compare their times, and passed through filters all the same."""
    parts = [make_video(tmp_path / f"{w}.ts", frames=20, size_wh=(w, 240)) for w in (80, 320)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    grows = pytest.raises(SourceError, match="320x240 is too large")
    with open_source(joined, every=1000, bounds=Bounds(320 * 240 - 1)) as source, grows:
        for _ in source:
            pass


BOMBS = {
    "a.gif": b"GIF89a" + struct.pack("<HH", 16_481, 12_288) + b"\x80\0\0" + bytes(6) + b"!\xf9\4\0\0\0\0\0,",
    "b.png": b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 20_000, 20_000, 1, 0, 0, 0, 0, 0)
    + struct.pack(">I4s", 0, b"IEND"),
    "c.mp4": b"",
    "d.png": cv2.imencode(".png", stamp(0))[1].tobytes()[:33] + struct.pack(">I4s", 2**31 - 1, b"IDAT") + bytes(90),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_few_bytes_that_claim_gigabytes(name, tmp_path):
    """By nobody's limit: as a user's own file, in a process whose memory is watched."""
    path = tmp_path / name
    data = BOMBS[name]
    if name == "b.png":
        head = data[12:29]
        data = data[:29] + struct.pack(">I", zlib.crc32(head)) + data[33:]
    if not data:
        make_video(path, frames=2, codec="mpeg4")
        data = path.read_bytes()
        for kind, at in (("tkhd", 80), ("mp4v", 28)):  # ISO/IEC 14496-12, 8.3.2 and 12.1.3
            start = data.index(kind.encode())
            form = ">II" if kind == "tkhd" else ">HH"
            size = (32_000 << 16, 32_000 << 16) if kind == "tkhd" else (32_000, 32_000)
            data = data[: start + at] + struct.pack(form, *size) + data[start + at + struct.calcsize(form) :]
    path.write_bytes(data)
    script = """
import resource, sys
import perception
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with perception.open_source(sys.argv[1]) as source:
        print(sum(frame.image.size < 100_000 for frame in source))
except perception.SourceError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=90)
    said, grown = done.stdout.splitlines()
    assert int(grown) < 300, done.stdout  # MB
    assert "too large" in said or "not" in said or said == "2", said


def test_large_pictures_with_something_in_them_are_taken(tmp_path):
    wide = make_image(tmp_path / "wide.png", np.random.default_rng(0).integers(0, 2, (8001, 8001), np.uint8) * 255)
    assert PLAUSIBLE_PIXELS < 8001 * 8001
    with open_source(wide) as source:
        assert next(source).image.shape == (8001, 8001, 3)


@pytest.mark.parametrize("size", [1, 400_000, 500_000, 10_000_000, 10**12])
def test_the_bound_of_a_large_file_is_one_that_ffmpeg_takes(size):
    bounds = Bounds.of_file(size)
    assert 2 * PLAUSIBLE_PIXELS <= int(bounds.codec_options["max_pixels"]) <= 2**31 - 1


def test_a_file_of_many_bytes_is_decoded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 480, 640, 3), np.uint8)
    path = make_video(tmp_path / "v.mkv", codec="ffv1", images=noise, size_wh=(640, 480))
    assert path.stat().st_size > 2_000_000
    with open_source(path) as source:
        assert len(list(source)) == 12
