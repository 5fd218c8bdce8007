"""Which frames of a file come, and when: time stamps, parts, counts, ends and damage."""

import logging
import shutil
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from perception.errors import SourceError, UsageError
from perception.sources import open_source
from tests.media import corrupt, make_video, packet_spans, read_stamp, stamp, truncate


def stamps(source):
    return [read_stamp(f.image) for f in source]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_variable_frame_rate_keeps_the_stored_times(tmp_path, ending):
    times = [0.0, 0.033, 0.5, 0.51, 0.6, 1.7, 1.75, 3.0]
    path = make_video(tmp_path / f"v.{ending}", times=times)
    with open_source(path) as source:
        frames = list(source)
        assert source.info.time_base == frames[0].time_base
    np.testing.assert_allclose([f.time for f in frames], times, atol=1e-3)
    assert [read_stamp(f.image) for f in frames] == list(range(len(times)))
    with av.open(str(path)) as container:
        stored = [(f.pts, f.time_base) for f in container.decode(video=0)]
    assert [(f.pts, f.time_base) for f in frames] == stored


def test_time_counts_from_the_start_of_the_container(tmp_path):
    # Broadcasts begin anywhere.
    path = make_video(tmp_path / "v.ts", times=[3600 + i / 25 for i in range(5)])
    with av.open(str(path)) as container:
        begin = container.start_time / 1e6
    assert begin >= 3600
    with open_source(path) as source:
        frames = list(source)
    np.testing.assert_allclose([f.time for f in frames], np.arange(5) / 25, atol=1e-6)
    np.testing.assert_allclose([float(f.pts * f.time_base) - f.time for f in frames], begin, atol=1e-6)


def test_video_that_begins_after_the_sound_keeps_its_delay(tmp_path):
    path = make_video(tmp_path / "v.mkv", times=[0.4, 0.44, 0.48, 0.52], audio="aac")
    with open_source(path) as source:
        times = [f.time for f in source]
    np.testing.assert_allclose(times, [0.4, 0.44, 0.48, 0.52], atol=0.03)  # AAC primes its decoder for 21 ms


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi", "h264"])
@pytest.mark.parametrize(("start", "first"), [(0.0, 0), (0.02, 1), (0.04, 1), (1.5, 38), (2.0, 50), (3.96, 99)])
def test_start_is_exact_to_the_frame(tmp_path, ending, start, first):
    path = make_video(tmp_path / f"v.{ending}", frames=100, keyint=12)
    with open_source(path, start=start) as source:
        frames = list(source)
    assert [read_stamp(f.image) for f in frames] == list(range(first, 100))
    assert [f.index for f in frames] == list(range(100 - first))
    assert frames[0].time == pytest.approx(first / 25, abs=1e-3)
    assert source.info.start == start


def test_start_lands_between_distant_keyframes(tmp_path):
    path = make_video(tmp_path / "v.ts", frames=300, keyint=300, options={"sc_threshold": "0"})
    with open_source(path, start=8.0, max_frames=2) as source:
        assert stamps(source) == [200, 201]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"duration": 0.4}, range(10)),
        ({"start": 1.0, "duration": 0.2}, range(25, 30)),
        ({"every": 7}, range(0, 60, 7)),
        ({"max_frames": 3}, range(3)),
        ({"max_frames": 99}, range(60)),
        ({"start": 1.0, "every": 3, "max_frames": 4}, range(25, 37, 3)),
        ({"start": 0.5, "duration": 1.0, "every": 10}, range(13, 38, 10)),
        ({"duration": 0.001}, range(1)),
    ],
)
def test_parts_and_their_count(tmp_path, options, expected):
    path = make_video(tmp_path / "v.mp4", frames=60, keyint=10)
    with open_source(path, **options) as source:
        frames = list(source)
    assert [read_stamp(f.image) for f in frames] == list(expected)
    first = expected[0]
    assert [f.index for f in frames] == [i - first for i in expected]
    assert abs(source.info.frame_count - len(frames)) <= (0 if source.info.exact_count else 1)
    assert source.info.exact_count == ("start" not in options and "duration" not in options)


def test_info(tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=30, fps=Fraction(30000, 1001), size_wh=(96, 64))
    with open_source(path) as source:
        info = source.info
    assert info.kind == "file"
    assert info.uri == info.path == str(path)
    assert (info.width, info.height, info.frame_count, info.exact_count) == (96, 64, 30, True)
    assert info.fps == Fraction(30000, 1001)
    assert not info.live
    with open_source(make_video(tmp_path / "v.mkv", frames=30)) as source:
        assert (source.info.frame_count, source.info.exact_count) == (30, False)  # Matroska tells its length only


@pytest.mark.parametrize(
    "option",
    [{"start": -1}, {"start": float("nan")}, {"duration": 0}, {"every": 0}, {"max_frames": 0}, {"timeout": 0},
     {"fps": 0}, {"transport": "carrier pigeon"}],
)  # fmt: skip
def test_options_out_of_range(tmp_path, option):
    with pytest.raises(UsageError, match=next(iter(option))):
        open_source(tmp_path / "v.mp4", **option)


def test_start_behind_the_end(tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=10)
    with pytest.raises(SourceError, match=r"v\.mp4: it ends before second 5"):
        open_source(path, start=5)


def test_names_that_look_like_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = make_video(tmp_path / "plain.mp4", frames=3)
    for name in ("concat:a|b.mp4", "%03d.mp4", "a?b*[c].mp4", "grüße 日本.mp4", "data:x,y.mp4"):
        shutil.copy(plain, tmp_path / name)
        with open_source(name) as source:
            assert stamps(source) == [0, 1, 2], name


def test_stamps_that_run_backwards_are_moved_on(tmp_path):
    # Two recordings joined byte by byte: the second one's clock begins again.
    part = make_video(tmp_path / "part.ts", frames=50)
    path = tmp_path / "joined.ts"
    path.write_bytes(part.read_bytes() * 2)
    with open_source(path) as source:
        frames = list(source)
    assert [read_stamp(f.image) for f in frames] == [*range(50), *range(50)]
    gaps = np.diff([f.time for f in frames])
    np.testing.assert_allclose(gaps, 1 / 25, atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_damage_in_the_middle_is_skipped_and_counted(tmp_path, caplog, ending, seed):
    path = make_video(tmp_path / f"v.{ending}", frames=120, keyint=10, size_wh=(160, 96))
    corrupt(path, 0.4, 0.5, seed=seed)
    with caplog.at_level(logging.WARNING, "perception"), open_source(path) as source:
        frames = list(source)
    numbers = [read_stamp(f.image) for f in frames]
    assert numbers[:30] == list(range(30))
    assert numbers[-20:] == list(range(100, 120))  # it went on behind the damage
    assert source.corrupt > 0
    assert sum("damaged data is skipped" in r.message for r in caplog.records) == 1
    assert np.all(np.diff([f.pts for f in frames]) > 0)


def test_one_broken_packet_costs_one_frame(tmp_path):
    path = make_video(tmp_path / "v.mkv", codec="ffv1", frames=20, keyint=1)
    offset, size = packet_spans(path)[7]
    data = bytearray(path.read_bytes())
    data[offset + 40 : offset + size] = bytes(255 - b for b in data[offset + 40 : offset + size])
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
    good = [i for i in range(20) if i != 7]
    assert [read_stamp(f.image) for f in frames if round(f.time * 25) != 7] == good


@pytest.mark.parametrize(("ending", "container"), [("mp4", {"movflags": "faststart"}), ("mkv", {}), ("ts", {})])
def test_a_missing_end_is_a_warning(tmp_path, caplog, ending, container):
    path = make_video(tmp_path / f"v.{ending}", frames=120, keyint=10, size_wh=(160, 96), container=container)
    truncate(path, 0.6)
    with caplog.at_level(logging.WARNING, "perception"), open_source(path) as source:
        numbers = stamps(source)
    assert 20 < len(numbers) < 110
    whole = len(numbers) - 4  # the last ones may refer to pictures that are gone
    assert numbers[:whole] == list(range(whole))
    if ending != "ts":  # MPEG-TS does not say how long it should be
        assert "the rest is missing" in caplog.text
        assert str(path) in caplog.text


def test_a_whole_file_gives_no_warning(tmp_path, caplog):
    for ending in ("mp4", "mkv", "ts", "flv", "avi", "webm"):
        codec = "libvpx-vp9" if ending == "webm" else "libx264"
        with open_source(make_video(tmp_path / f"v.{ending}", frames=40, codec=codec)) as source:
            assert stamps(source) == list(range(40))
    assert not caplog.records


@pytest.mark.parametrize("first", [0, 3, 15, 20])
@pytest.mark.parametrize("length", [None, 25])
def test_frames_that_a_cut_left_out_are_not_missing(tmp_path, caplog, first, length):
    """An edit list, as phones write one for a cut: all frames are stored, some are shown (ISO/IEC 14496-12, 8.6.6)."""
    path = make_video(tmp_path / "v.mp4", frames=50, keyint=10)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    duration, begin = struct.unpack(">Ii", data[at : at + 8])
    assert duration == 2000  # milliseconds
    frame = 12800 // 25
    data[at : at + 8] = struct.pack(">Ii", duration if length is None else 40 * length, begin + frame * first)
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
    expected = list(range(first, 50 if length is None else first + length))
    assert [read_stamp(f.image) for f in frames] == expected
    np.testing.assert_allclose([f.time for f in frames], [(i - first) / 25 for i in expected], atol=1e-6)
    assert (source.info.frame_count, source.info.exact_count) == (len(expected), True)
    assert not caplog.records


def test_a_clock_that_wraps_in_the_middle_loses_no_frame(tmp_path):
    """MPEG-TS counts to 2**33 at 90 kHz; FFmpeg counts what comes before the wrap from below zero."""
    path = tmp_path / "v.ts"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled", "muxdelay": "0"}) as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(stamp(i), "bgr24")
            frame.pts = i - 8
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time < 0
    with open_source(path) as source:
        frames = list(source)
    assert [read_stamp(f.image) for f in frames] == list(range(20))
    np.testing.assert_allclose([f.time for f in frames], np.arange(20) / 25, atol=1e-4)
    with open_source(path, start=0.2, duration=0.4) as source:
        assert [read_stamp(f.image) for f in source] == list(range(5, 15))


def test_the_largest_stream_is_read_unless_another_is_the_default(tmp_path):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as out:
        for size in (32, 64):
            stream = out.add_stream("libx264", rate=25)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.disposition = av.stream.Disposition(0)
        for i in range(5):
            for stream in out.streams.video:
                frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in out.streams.video:
            out.mux(stream.encode(None))
    with open_source(path) as source:
        assert source.info.width == 64


def test_memory_of_frames_is_free_as_soon_as_they_are(tmp_path):
    import gc

    import psutil

    path = make_video(tmp_path / "v.mp4", frames=250, size_wh=(640, 360), options={"preset": "ultrafast"})
    process = psutil.Process()
    with open_source(path) as source:
        for _ in range(50):
            next(source)
        gc.collect()
        gc.disable()  # what hangs in a reference cycle would stay
        try:
            before = process.memory_info().rss
            assert sum(1 for _ in source) == 200
            grown = process.memory_info().rss - before
        finally:
            gc.enable()
    assert grown < 15e6  # 200 frames are 69 MB


@pytest.mark.parametrize("rotation", [None, 90])
def test_no_frame_waits_for_the_garbage_collector(tmp_path, rotation):
    import gc

    def alive():
        return sum(type(o) is av.VideoFrame for o in gc.get_objects())

    path = make_video(tmp_path / "v.mp4", frames=5, rotation=rotation)
    gc.collect()
    gc.disable()  # a server that plays a file again and again opens it many times before the collector comes
    try:
        before = alive()
        for _ in range(10):
            with open_source(path) as source:
                assert sum(1 for _ in source) == 5
        del source
        left = alive() - before
    finally:
        gc.enable()
    assert left <= 0  # threads of other tests may let go of theirs


def test_closing_early_and_twice(tmp_path):
    source = open_source(make_video(tmp_path / "v.mp4", frames=10))
    kept = next(source)
    source.close()
    source.close()
    assert list(source) == []
    assert read_stamp(kept.image) == 0  # a frame outlives its source
