"""Video: times, sizes, colours, and what is left of a file when writing ends badly. Sound has a file of its own."""

import logging
import shutil
import signal
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from perception.errors import SinkError, UsageError
from perception.picture.conversions import to_bgr
from perception.sinks import open_sink
from perception.sinks.codecs import CODECS
from perception.sinks.video import FRAGMENT_S
from perception.types import Frame, Planes, Prediction
from tests.server.waiting import wait_for
from tests.sinks.samples import (
    card,
    image,
    info,
    packets,
    pictures,
    planes,
    prediction,
    run_script,
    shown_index,
    take_away,
)

CONTAINERS = ("mp4", "mov", "mkv", "webm")


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times(path: Path) -> list[float]:
    return [float(f.pts * f.time_base) for f in decoded(path)]


def write(path: Path, predictions: list[Prediction], source: object = None, **options: object) -> Path:
    with open_sink(path, **options) as sink:
        sink.open(source or info(), card())
        for one in predictions:
            sink.write(one)
    return path


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_frames_come_back_in_order_with_their_times(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"out.{suffix}", [prediction(i) for i in range(60)])
    assert [shown_index(p) for p in pictures(path)] == [i % 55 for i in range(60)]
    np.testing.assert_allclose(times(path), np.arange(60) / 25, atol=0.0006 if suffix in ("mkv", "webm") else 0)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(60 / 25, abs=0.001)


@pytest.mark.parametrize("base", [Fraction(1, 90000), Fraction(1, 1000), Fraction(1001, 30000), Fraction(1, 1_000_000)])
def test_variable_frame_rate_is_kept(tmp_path: Path, base: Fraction) -> None:
    # Gaps of one frame to a second; the last one repeats for the last frame, whose duration nobody knows.
    gaps = [Fraction(n, 30) for n in (1, 1, 2, 1, 5, 30, 1, 1, 3, 2, 7, 1, 1, 1, 4)]
    stamps = [0]
    for gap in gaps * 3:
        stamps.append(stamps[-1] + round(gap / base))
    shown = [prediction(i, pts=p, time_base=base) for i, p in enumerate(stamps)]
    path = write(tmp_path / "out.mp4", shown, info(time_base=base, fps=Fraction(10)))
    frames = decoded(path)
    assert [f.pts * f.time_base for f in frames] == [p * base for p in stamps]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == (stamps[-1] + stamps[-1] - stamps[-2]) * base


def test_a_live_source_begins_at_zero(tmp_path: Path) -> None:
    shown = [prediction(i, pts=10**9 + 3000 * i, time_base=Fraction(1, 90000)) for i in range(5)]
    path = write(tmp_path / "out.mp4", shown, info(kind="stream", live=True, time_base=Fraction(1, 90000)))
    np.testing.assert_allclose(times(path), np.arange(5) / 30, atol=1e-6)


def test_frames_without_pts_go_by_their_time(tmp_path: Path) -> None:
    shown = [Prediction(Frame(image(i), index=i, time=5 + i / 24), picture=image(i)) for i in range(8)]
    for fps in (Fraction(24), None):
        path = write(tmp_path / f"{fps}.mp4", shown, info(time_base=None, fps=fps)) if fps else None
        if path is None:
            path = write(tmp_path / "none.mp4", shown, info(time_base=None, fps=None, live=True))
        np.testing.assert_allclose(times(path), np.arange(8) / 24, atol=1e-4)


def test_one_frame_lasts_as_long_as_fps_says(tmp_path: Path) -> None:
    path = write(tmp_path / "out.mp4", [prediction(0)], info(fps=Fraction(5), every=2))
    assert [duration for _, duration, _ in packets(path, "video")] == [Fraction(2, 5)]


def test_times_that_stand_still_or_go_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "out.mp4", [prediction(i, pts=p) for i, p in enumerate((0, 512, 512, 100, 2048))])
    assert [f.pts for f in decoded(path)] == [0, 512, 513, 514, 2048]
    assert sum("do not always increase" in r.message for r in caplog.records) == 1


# With crf 0, x264 is lossless: what comes back must equal what went in, to the bit.
@pytest.mark.parametrize("size", [(64, 48), (63, 48), (64, 47), (65, 49), (1, 1), (2, 1), (1, 7), (322, 182)])
@pytest.mark.parametrize("tags", [("bt601", False), ("bt709", False), ("bt709", True)])
def test_planes_are_kept_to_the_bit(tmp_path: Path, size: tuple[int, int], tags: tuple[str, bool]) -> None:
    width, height = size
    rng = np.random.default_rng(width * 1000 + height)
    given = [planes(rng, width, height, buffer=i != 1, matrix=tags[0], full_range=tags[1]) for i in range(3)]
    shown = [prediction(i, picture=p) for i, p in enumerate(given)]
    path = write(tmp_path / "out.mp4", shown, info(width=width, height=height), crf=0)
    frames = decoded(path)
    assert len(frames) == 3
    for frame, picture in zip(frames, given, strict=True):
        assert frame.format.name.replace("j", "") == "yuv420p"
        assert (frame.width, frame.height) == (width + width % 2, height + height % 2)
        assert frame.color_range == (2 if tags[1] else 1)
        assert frame.colorspace == (1 if tags[0] == "bt709" else 6)
        right, below = width % 2, height % 2
        y, u, v = (np.array(p).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes)
        np.testing.assert_array_equal(y, np.pad(picture.y, ((0, below), (0, right)), mode="edge"))
        np.testing.assert_array_equal(u, picture.u)
        np.testing.assert_array_equal(v, picture.v)


@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_bgr_keeps_its_colours(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    colors = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    given = np.ascontiguousarray(np.kron(colors, np.ones((16, 16, 1), np.uint8))[:height, :width])
    (shown,) = pictures(write(tmp_path / "out.mp4", [prediction(0, picture=given)], crf=0))
    assert shown.shape == (48, 64, 3)
    # Away from edges, which 4:2:0 blurs, only rounding is lost; a wrong matrix or range would cost dozens of levels.
    inner = np.zeros((48, 64), bool)
    inner.reshape(3, 16, 4, 16)[:, 4:12, :, 4:12] = True
    np.testing.assert_allclose(shown[inner].astype(int), given[inner[:height, :width]], atol=4)
    # The row and column that were added look like their neighbours.
    np.testing.assert_allclose(shown[-1, 4:12].astype(int), colors[-1, 0][None].repeat(8, 0), atol=6)
    np.testing.assert_allclose(shown[4:12, -1].astype(int), colors[0, -1][None].repeat(8, 0), atol=6)


@pytest.mark.parametrize("tags", [("bt601", False), ("bt709", False), ("bt601", True), ("bt709", True)])
def test_another_matrix_or_range_is_converted_to_the_first(tmp_path: Path, tags: tuple[str, bool]) -> None:
    def flat(y: int, u: int, v: int, matrix: str, full_range: bool) -> Planes:
        half = np.full((24, 32), u, np.uint8), np.full((24, 32), v, np.uint8)
        return Planes(np.full((48, 64), y, np.uint8), *half, matrix, full_range)  # type: ignore[arg-type]

    first = flat(100, 110, 150, *tags)
    others = [flat(90, 160, 100, m, r) for m in ("bt601", "bt709") for r in (False, True)]
    given = [first, *others, np.full((48, 64, 3), (200, 90, 30), np.uint8)]
    path = write(tmp_path / "out.mp4", [prediction(i, picture=p) for i, p in enumerate(given)], crf=0)
    for frame, picture in zip(decoded(path), given, strict=True):
        wanted = to_bgr(picture)
        y, u, v = (np.array(p).reshape(p.height, p.line_size)[:, : p.width].copy() for p in frame.planes)
        shown = to_bgr(Planes(y, u, v, *tags))  # type: ignore[arg-type]
        np.testing.assert_allclose(shown.astype(int), wanted, atol=4)


def test_other_sizes_are_fitted_into_the_first(tmp_path: Path) -> None:
    white = np.full((100, 50, 3), 255, np.uint8)
    wide = planes(np.random.default_rng(0), 128, 32)
    for plane in (wide.y, wide.u, wide.v):
        plane[:] = 128
    given = [np.full((48, 64, 3), 128, np.uint8), white, wide, np.full((24, 32, 3), 200, np.uint8)]
    shown = pictures(write(tmp_path / "out.mp4", [prediction(i, picture=p) for i, p in enumerate(given)], crf=0))
    assert {p.shape for p in shown} == {(48, 64, 3)}
    assert shown[1][:, 22:42].min() > 245  # 24 wide, in the middle
    assert shown[1][:, :18].max() < 8
    assert shown[1][:, 46:].max() < 8
    assert shown[2][18:30].min() > 100  # 16 high
    assert shown[2][:14].max() < 8
    assert shown[3].min() > 190  # enlarged to all of it


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1", "ffv1"])
def test_the_encoder_keeps_no_hold_of_the_callers_memory(tmp_path: Path, codec: str) -> None:
    if CODECS.get(codec, codec) not in av.codecs_available:
        pytest.skip("not in this build")
    rng = np.random.default_rng(0)
    picture = planes(rng, 64, 64)
    assert picture.buffer is not None
    sink = open_sink(tmp_path / "out.mkv", codec=codec)
    sink.open(info(width=64, height=64), None)
    free = sys.getrefcount(picture.buffer)
    values = [40, 80, 120, 160, 200] * 6
    for index, value in enumerate(values):
        picture.buffer[:] = 128
        picture.y[:] = value
        sink.write(prediction(index, picture=picture))
        count = sys.getrefcount(picture.buffer)
        assert count == free
    sink.close()
    shown = [np.array(f.planes[0])[0] for f in decoded(tmp_path / "out.mkv")]
    np.testing.assert_allclose(np.array(shown, int), values, atol=6)


def boxes(path: Path) -> list[str]:
    """Names of the top boxes of an MP4."""
    data, at, names = path.read_bytes(), 0, []
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        names.append(name.decode())
        at += size if size > 1 else struct.unpack(">Q", data[at + 8 : at + 16])[0]
    return names


def test_a_closed_mp4_is_an_ordinary_one(tmp_path: Path) -> None:
    path = write(tmp_path / "out.mp4", [prediction(i) for i in range(100)])
    assert boxes(path)[-1] == "moov"
    assert "moof" not in boxes(path)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 100
        container.seek(2_000_000)
        assert next(container.decode(video=0)).pts <= 2 * 12800


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_after_an_interrupt_or_an_error_all_frames_that_came_are_there(tmp_path: Path, suffix: str, end: str) -> None:
    sink = open_sink(tmp_path / f"out.{suffix}")
    sink.open(info(frame_count=1000), card())
    for index in range(33):
        sink.write(prediction(index))
    getattr(sink, end)()
    assert [shown_index(p) for p in pictures(tmp_path / f"out.{suffix}")] == list(range(33))


ENDLESS = """
import itertools, sys
from perception.picture.conversions import to_bgr
from perception.sinks import open_sink
from perception.sinks.codecs import CODECS
from tests.sinks.samples import card, info, prediction
sink = open_sink(sys.argv[1])
sink.open(info(), card())
for index in itertools.count():
    sink.write(prediction(index))
    print(index, flush=True)
"""


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_killed_process_leaves_a_file_that_plays_up_to_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    process = run_script(ENDLESS, str(path), stdout=-1)
    assert process.stdout is not None
    for _ in range(200):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    written = 200 + len(process.stdout.readlines())
    process.wait()
    shown = [shown_index(p) for p in pictures(path)]
    last = len(shown) - 1
    assert shown[:-1] == [i % 55 for i in range(last)]
    # A B frame comes after the one behind it, to which it refers: it may be missing before the last one.
    assert shown[-1] in (last % 55, (last + 1) % 55)
    # Lost are at most the frames in the encoder (look-ahead, reordering, one a thread) and an unfinished second.
    assert len(shown) >= written - 25 - 60


@pytest.mark.parametrize(
    ("suffix", "codec", "held"),
    [("mp4", "h264", 2), ("mov", "h264", 2), ("mkv", "h264", 2), ("mp4", "hevc", 4), ("webm", "vp9", 0)]
    + [("mkv", "av1", 0)],
)
def test_of_a_live_source_a_kill_loses_a_few_frames(tmp_path: Path, suffix: str, codec: str, held: int) -> None:
    path = tmp_path / f"out.{suffix}"
    with open_sink(path, codec=codec) as sink:
        sink.open(info(live=True), card())
        for index in range(75):
            sink.write(prediction(index))
        shutil.copy(path, tmp_path / f"killed.{suffix}")
    # Those of a fragment of a quarter of a second, and the frame that ends it.
    assert len(pictures(tmp_path / f"killed.{suffix}")) >= 75 - held - 25 * FRAGMENT_S - 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("fault", ["removed", "folder", "moved", "replaced"])
def test_a_video_that_is_gone_ends_the_run(tmp_path: Path, suffix: str, fault: str) -> None:
    path = tmp_path / "folder" / f"out.{suffix}"
    sink = open_sink(path)
    sink.open(info(), card())
    sink.write(prediction(0))
    take_away(path, fault)
    with pytest.raises(SinkError, match=f"out.{suffix}: .* while it was being written"):
        sink.close()
    if fault == "replaced":
        assert path.read_bytes() == b"another's"
    if fault == "moved":  # what is there can be played
        assert len(pictures(path.with_name("other"))) == 1


LIMITED = """
import resource, sys
from perception.errors import SinkError
from perception.picture.conversions import to_bgr
from perception.sinks import open_sink
from perception.sinks.codecs import CODECS
from tests.sinks.samples import card, info, planes, prediction
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
rng = np.random.default_rng(0)
try:
    with open_sink(sys.argv[1]) as sink:
        sink.open(info(), card())
        for index in range(int(sys.argv[2])):
            sink.write(prediction(index, picture=planes(rng, 64, 48)))
except SinkError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_file_that_may_not_grow_plays_up_to_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    process = run_script(LIMITED, str(path), "2000", "300000", stdout=-1, stderr=-1)
    said, log = process.communicate()
    assert process.returncode == 7, log
    assert f"{path}: the file has reached the largest size" in said.decode()
    assert b"Traceback" not in log
    assert len(said.splitlines()) == 1
    shown = times(path)
    assert 50 < len(shown) < 2000
    np.testing.assert_allclose(shown, np.arange(len(shown)) / 25, atol=0.001)


def test_an_index_that_does_not_fit_leaves_the_fragments(tmp_path: Path) -> None:
    """The disk fills up while the file is being closed: the fragments must not be hidden then."""
    # Measured in a process of the same kind: of tiny videos x264 reads memory that it has not written.
    whole = tmp_path / "whole.mp4"
    assert run_script(LIMITED, str(whole), "80", str(10**9)).wait() == 0
    limit = whole.stat().st_size - 200  # the index is larger than that
    path = tmp_path / "out.mp4"
    process = run_script(LIMITED, str(path), "80", str(limit), stdout=-1, stderr=-1)
    said, log = process.communicate()
    assert process.returncode == 7, log
    assert b"largest size" in said
    assert boxes(path)[-2:] == ["moof", "mdat"]
    assert len(times(path)) == 80


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(SinkError, match="/dev/full: the disk is full"), open_sink("/dev/full", format="mkv") as sink:
        sink.open(info(), card())
        for index in range(200):
            sink.write(prediction(index))


PIPED = """
import sys
from perception.picture.conversions import to_bgr
from perception.sinks import open_sink
from perception.sinks.codecs import CODECS
from tests.sinks.samples import card, info, prediction
with open_sink("-", kind="video", format=sys.argv[1]) as sink:
    sink.open(info(), card())
    for index in range(50):
        sink.write(prediction(index))
"""


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_standard_output_can_be_played(tmp_path: Path, suffix: str) -> None:
    process = run_script(PIPED, suffix, stdout=-1)
    data, _ = process.communicate()
    assert process.returncode == 0
    path = tmp_path / f"piped.{suffix}"
    path.write_bytes(data)
    assert [shown_index(p) for p in pictures(path)] == list(range(50))


def test_no_frames_leave_no_file_and_a_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out.mp4"
    with open_sink(path) as sink:
        sink.open(info(), card())
    assert list(tmp_path.iterdir()) == []
    assert f"{path}: there were no frames" in caplog.text
    path.write_text("an old one would pass for the result")
    with open_sink(path, overwrite=True) as sink:
        sink.open(info(), card())
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_preset_is_told_before_the_first_frame(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mp4", preset="warp")
    with pytest.raises(UsageError, match=r"libx264 does not accept 64x48 with .*preset warp"):
        sink.open(info(), card())
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_the_encoder_has_not(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mkv", codec="ffv1", crf=20)
    with pytest.raises(UsageError, match="ffv1 has no option crf"):
        sink.open(info(), card())


def test_options_reach_the_encoder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [prediction(i, picture=planes(rng, 128, 96)) for i in range(12)]
    small = write(tmp_path / "small.mp4", noise, crf=45, preset="ultrafast", threads=1)
    large = write(tmp_path / "large.mp4", noise, crf=10)
    assert small.stat().st_size < large.stat().st_size / 3
    with av.open(str(write(tmp_path / "out.webm", noise[:2]))) as container:
        assert container.streams.video[0].codec_context.name == "vp9"


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
def test_encoders_say_nothing_by_themselves(tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    if CODECS[codec] not in av.codecs_available:
        pytest.skip("not in this build")
    write(tmp_path / "out.mkv", [prediction(i, picture=image(i, 96, 64)) for i in range(3)], codec=codec)
    assert capfd.readouterr() == ("", "")


def test_writing_takes_the_frame_itself_where_nothing_is_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "out.mp4", [Prediction(Frame(image(i), index=i, time=i / 25)) for i in range(3)])
    assert [shown_index(p) for p in pictures(path)] == [0, 1, 2]


def test_nothing_is_logged_when_all_is_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "perception")
    write(tmp_path / "out.mp4", [prediction(i) for i in range(3)])
    assert caplog.records == []


def test_closing_takes_no_time_that_grows_with_the_file(tmp_path: Path) -> None:
    """Nothing is copied at the end: the bytes of the media stay where they were written."""
    path = tmp_path / "out.mp4"
    rng = np.random.default_rng(0)
    sink = open_sink(path)
    sink.open(info(), None)
    for index in range(100):
        sink.write(prediction(index, picture=planes(rng, 64, 48)))
    wait_for(lambda: path.stat().st_size > 50_000)
    before = path.read_bytes()
    inode = path.stat().st_ino
    sink.close()
    after = path.read_bytes()
    assert path.stat().st_ino == inode
    assert after[5000 : len(before)] == before[5000:]
