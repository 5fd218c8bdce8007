"""Recordings whose clock jumps: single wrong stamps, joints, discontinuities of playlists; and genuine pauses."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from perception.sinks import open_sink
from perception.sources import open_source
from perception.types import Prediction
from tests.media import http_folder, make_video, read_stamp, restamp, stamp

HOUR = 3600 * 90_000
CONTAINERS = ("mp4", "mkv", "webm", "mov")


def part(path, first, frames=50, start=0.0, fmt="mpegts", **options):
    """Frames that show ``first`` and on, the clock beginning at ``start`` seconds."""
    images = [stamp(first + i) for i in range(frames)]
    return make_video(path, images=images, times=[start + i / 25 for i in range(frames)], fmt=fmt, **options)


def recorded(source, out):
    """Numbers that the frames show, their times, and the length of what is recorded."""
    numbers, times = [], []
    with open_source(source) as opened, open_sink(out) as sink:
        sink.open(opened.info)
        for frame in opened:
            numbers.append(read_stamp(frame.image))
            times.append(frame.time)
            sink.write(Prediction(frame))
    with av.open(str(out)) as container:
        stamps = sorted(float(p.pts * p.time_base) for p in container.demux(video=0) if p.size)
        assert len(stamps) == len(numbers)
        length = container.duration / 1e6
    np.testing.assert_allclose(np.array(stamps) - stamps[0], np.array(times) - times[0], atol=0.0011)
    return numbers, times, length


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("by", [10 * HOUR, 30 * 90_000, -20 * HOUR, 3 * 90_000])
def test_single_wrong_stamps(tmp_path, by, bframes, suffix):
    whole = part(tmp_path / "v.ts", 0, 100, 100_000.0, options={"bf": str(bframes)})
    (tmp_path / "w.ts").write_bytes(restamp(whole.read_bytes(), {20, 50, 51, 80}, by))
    numbers, times, length = recorded(tmp_path / "w.ts", tmp_path / f"o.{suffix}")
    assert sorted(numbers) == list(range(100))
    assert length == pytest.approx(4.0, abs=0.05)
    assert max(b - a for a, b in pairwise(times)) < 0.2
    if not bframes:
        assert numbers == list(range(100))
        np.testing.assert_allclose(times, np.arange(100) / 25, atol=1e-6)


@pytest.mark.parametrize("by", [10 * HOUR, 30 * 90_000])
def test_a_wrong_first_stamp(tmp_path, by):
    whole = part(tmp_path / "v.ts", 0, 50, 100.0, options={"bf": "0"})
    (tmp_path / "w.ts").write_bytes(restamp(whole.read_bytes(), {0}, by))
    numbers, times, length = recorded(tmp_path / "w.ts", tmp_path / "o.mp4")
    assert numbers == list(range(50))
    assert length == pytest.approx(2.0, abs=0.05)
    assert times[0] < 0.1


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("fmt", ["mpegts", "flv"])
@pytest.mark.parametrize("starts", [(0, 36_000, 0), (36_000, 0, 72_000), (0, 25, 3), (50, 47, 44)])
def test_recordings_joined(tmp_path, starts, fmt, suffix):
    if fmt == "flv" and any(b < a for a, b in pairwise(starts)):
        pytest.skip("FLV is joined by recorders that go on, with a later clock")
    joined = tmp_path / f"joined.{fmt}"
    data = b""
    for n, start in enumerate(starts):
        piece = part(tmp_path / f"{n}.{fmt}", 50 * n, 50, start, fmt).read_bytes()
        data += piece[13:] if fmt == "flv" and n else piece  # but one header
    joined.write_bytes(data)
    numbers, times, length = recorded(joined, tmp_path / f"o.{suffix}")
    assert numbers == list(range(150))
    assert length == pytest.approx(6.0, abs=0.1)
    assert max(b - a for a, b in pairwise(times)) < 0.1


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video", "libx264"])
def test_program_streams_joined(tmp_path, codec):
    data = b"".join(
        make_video(tmp_path / f"{n}.vob", images=[stamp(50 * n + i) for i in range(50)], codec=codec).read_bytes()
        for n in range(3)
    )
    (tmp_path / "joined.vob").write_bytes(data)
    numbers, times, length = recorded(tmp_path / "joined.vob", tmp_path / "o.mp4")
    assert len(numbers) >= 147  # the decoder holds one back at a joint
    assert numbers == sorted(set(numbers))
    assert length == pytest.approx(6.0, abs=0.2)
    assert max(b - a for a, b in pairwise(times)) < 0.2


@pytest.mark.parametrize("container", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("pause", [15, 3600, 5 * 3600])
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_genuine_pauses_stay(tmp_path, pause, container, suffix):
    times = [i / 10 for i in range(10)] + [pause + i / 10 for i in range(10)]
    path = make_video(tmp_path / f"v.{container}", times=times, fps=10, options={"bf": "0"})
    numbers, found, length = recorded(path, tmp_path / f"o.{suffix}")
    assert numbers == list(range(20))
    np.testing.assert_allclose(found, times, atol=0.001)
    assert length == pytest.approx(pause + 1.0, abs=0.02)


def test_a_discontinuity_of_a_playlist(tmp_path):
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2"]
    for n, start in enumerate((40_000, 10, 70_000)):
        part(tmp_path / f"{n}.ts", 50 * n, 50, start)
        lines += ["#EXT-X-DISCONTINUITY"] * (n > 0) + ["#EXTINF:2.0,", f"{n}.ts"]
    (tmp_path / "list.m3u8").write_text("\n".join([*lines, "#EXT-X-ENDLIST"]) + "\n")
    with http_folder(tmp_path) as base:
        numbers, _, length = recorded(f"{base}/list.m3u8", tmp_path / "o.mp4")
    assert numbers == list(range(150))
    assert length == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "mov", "flv"])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_sane_stays_as_it_is(tmp_path, ending, seed):
    rng = np.random.default_rng(seed)
    steps = rng.choice([0.04] * 5 + [0.08, 0.2, 1.0, 5.0], 80)
    start = 0.0 if ending == "flv" else float(rng.choice([0, 7, 50_000]))
    path = make_video(tmp_path / f"v.{ending}", times=(start + np.cumsum(steps)).tolist())
    with av.open(str(path)) as container:
        stored = [f.pts * f.time_base for f in container.decode(video=0)]
        origin = Fraction(max(0, container.start_time or 0), 1_000_000)
    with open_source(path) as source:
        frames = list(source)
    np.testing.assert_allclose([f.time for f in frames], [float(t - origin) for t in stored], atol=2e-6)
    assert [f.pts * f.time_base for f in frames] == stored
