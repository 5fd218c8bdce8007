"""The sound that is carried along: as many packets, the same times, and an end where the video ends."""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from perception.sinks import open_sink
from perception.sources import open_source
from perception.types import Frame, Prediction, SourceInfo
from tests.media import restamp
from tests.sinks.samples import image, make_video, packets


def annotate(
    source: Path, out: Path, *, start: float = 0, limit: int | None = None, every: int = 1, **known: Any
) -> Path:
    """Read a file and write it again, as the pipeline would."""
    with av.open(str(source.absolute())) as container:
        stream = container.streams.video[0]
        base = stream.time_base
        info = SourceInfo(
            uri=str(source), kind="file", width=stream.width, height=stream.height, fps=stream.average_rate,
            time_base=base, path=str(source), start=start, every=every, **known,
        )  # fmt: skip
        with open_sink(out) as sink:
            sink.open(info, None)
            first = container.start_time / 1e6
            for index, frame in enumerate(container.decode(stream)):
                time = float(frame.pts * base)
                if time - first < start or index % every or (limit is not None and index >= limit):
                    continue
                picture = image(index, stream.width, stream.height)
                given = Frame(picture, index=index, time=time, source=str(source), pts=frame.pts, time_base=base)
                sink.write(Prediction(given, picture=picture))
    return out


def end(found: list[tuple[Fraction, Fraction, int]]) -> Fraction:
    return max(start + duration for start, duration, _ in found)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("audio_s", [1.0, 2.0, 3.5])
def test_all_packets_are_copied(tmp_path: Path, suffix: str, audio_s: float) -> None:
    source = make_video(tmp_path / "in.mp4", audio_s=audio_s)
    out = annotate(source, tmp_path / f"out.{suffix}")
    was, found = packets(source, "audio"), packets(out, "audio")
    assert [size for *_, size in found] == [size for *_, size in was]
    atol = 0.0011 if suffix == "mkv" else 0
    shift = float(found[0][0] - was[0][0])  # MKV has no negative times: all of it moves by the codec's priming
    assert 0 <= shift < 0.025
    assert suffix == "mkv" or shift == 0
    np.testing.assert_allclose([float(p[0]) - shift for p in found], [float(p[0]) for p in was], atol=atol)
    video = packets(out, "video")
    np.testing.assert_allclose(
        [float(p[0]) - shift for p in video],
        [float(p[0]) for p in packets(source, "video")],
        atol=atol,
    )
    with av.open(str(source)) as a, av.open(str(out)) as b:
        assert b.duration == pytest.approx(a.duration, abs=40_000)
        assert b.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize("every", [2, 7])
def test_skipped_frames_do_not_shorten_the_sound(tmp_path: Path, every: int) -> None:
    source = make_video(tmp_path / "in.mp4", audio_s=2.1)
    out = annotate(source, tmp_path / "out.mp4", every=every)
    assert len(packets(out, "video")) == -(-50 // every)
    assert len(packets(out, "audio")) == len(packets(source, "audio"))


@pytest.mark.parametrize("limit", [1, 10, 49])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_ends_where_a_cut_video_ends(tmp_path: Path, suffix: str, limit: int) -> None:
    source = make_video(tmp_path / "in.mp4", audio_s=3)
    out = annotate(source, tmp_path / f"out.{suffix}", limit=limit)
    assert len(packets(out, "video")) == limit
    assert float(end(packets(out, "audio"))) == pytest.approx(limit / 25, abs=0.045)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_part_from_the_middle_stays_in_step(tmp_path: Path, suffix: str) -> None:
    source = make_video(tmp_path / "in.mp4", audio_s=2)
    out = annotate(source, tmp_path / f"out.{suffix}", start=0.8, limit=30, duration=0.4)
    video, audio = packets(out, "video"), packets(out, "audio")
    assert len(video) == 10
    assert float(video[0][0]) == pytest.approx(0, abs=0.001)
    # Which packet of the source is the first, by its size and its neighbours', and is it where it was?
    sizes = [size for *_, size in packets(source, "audio")]
    mine = [size for *_, size in audio]
    at = next(i for i in range(len(sizes)) if sizes[i : i + len(mine)] == mine)
    expected = float(packets(source, "audio")[at][0]) - 0.8
    assert 0 <= expected < 0.022
    assert float(audio[0][0]) == pytest.approx(expected, abs=0.001)
    assert float(end(audio)) == pytest.approx(0.4, abs=0.03)


def test_a_file_that_does_not_begin_at_zero_stays_in_step(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.ts", start_s=7)
    before = float(packets(source, "video")[0][0] - packets(source, "audio")[0][0])
    assert packets(source, "video")[0][0] > 6
    out = annotate(source, tmp_path / "out.mp4")
    assert 0 <= packets(out, "video")[0][0] < 0.1
    assert float(packets(out, "video")[0][0] - packets(out, "audio")[0][0]) == pytest.approx(before, abs=0.001)
    assert len(packets(out, "audio")) == len(packets(source, "audio"))


def test_late_video_stays_late(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", pts=range(25600, 25600 + 25 * 512, 512), audio_s=3)
    out = annotate(source, tmp_path / "out.mp4")
    assert packets(out, "video")[0][0] == packets(source, "video")[0][0] == 2
    assert len(packets(out, "audio")) == len(packets(source, "audio"))


@pytest.mark.parametrize(("codec", "container"), [("pcm_s16le", "mov"), ("aac", "mp4"), ("libvorbis", "mkv")])
def test_sound_that_the_container_does_not_take_is_encoded(
    tmp_path: Path, codec: str, container: str, caplog: pytest.LogCaptureFixture
) -> None:
    if codec not in av.codecs_available:
        pytest.skip("not in this build")
    caplog.set_level(logging.INFO, "perception")
    source = make_video(tmp_path / f"in.{container}", audio=codec, audio_s=2)
    suffix = "webm" if codec == "aac" else "mp4"
    out = annotate(source, tmp_path / f"out.{suffix}")
    assert "the sound is" in caplog.text
    with av.open(str(out)) as read:
        assert read.streams.audio[0].codec_context.name == ("opus" if suffix == "webm" else "aac")
        samples = np.concatenate([f.to_ndarray()[0] for f in read.decode(audio=0)])
    assert len(samples) / 48000 == pytest.approx(2, abs=0.06)
    # The tone of 440 Hz is still one of 440 Hz.
    spectrum = np.abs(np.fft.rfft(samples[4800:52800] * np.hanning(48000)))
    assert np.argmax(spectrum) == pytest.approx(440, abs=2)


def test_a_file_without_sound_or_sound_that_is_not_wanted(tmp_path: Path) -> None:
    silent = make_video(tmp_path / "silent.mp4", audio=None)
    assert packets(annotate(silent, tmp_path / "a.mp4"), "audio") == []
    source = make_video(tmp_path / "in.mp4")
    with open_sink(tmp_path / "b.mp4", audio=False) as sink:
        sink.open(SourceInfo(str(source), "file", 64, 48, Fraction(25), path=str(source)), None)
        sink.write(Prediction(Frame(image(0)), picture=image(0)))
    assert packets(tmp_path / "b.mp4", "audio") == []


def test_a_colon_makes_no_protocol_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "at-10:30:00.mp4")
    out = annotate(Path("at-10:30:00.mp4"), tmp_path / "out.mp4")
    assert packets(out, "audio")


def test_sound_is_written_along_and_not_at_the_end(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", pts=range(0, 250 * 512, 512), audio_s=10)
    out = annotate(source, tmp_path / "out.mp4")
    with av.open(str(out)) as container:
        order = [(p.pos, p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.size]
    order.sort()
    latest = {"video": 0.0, "audio": 0.0}
    for _, kind, at in order:
        latest[kind] = max(latest[kind], at)
        assert abs(latest["video"] - latest["audio"]) < 2.5


def test_a_source_that_ends_in_the_middle_of_its_sound(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "in.mkv", pts=range(0, 100 * 512, 512), audio_s=4)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    out = annotate(cut, tmp_path / "out.mp4")
    assert len(packets(out, "audio")) == len(packets(cut, "audio")) > 10


def through(source: Path, out: Path) -> Path:
    """The frames of a source as they are, written again."""
    with open_source(source) as opened, open_sink(out) as sink:
        sink.open(opened.info, None)
        for frame in opened:
            sink.write(Prediction(frame))
    return out


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("audio_s", [1.5, 2.0, 2.5])
def test_recordings_joined_together_stay_in_step(tmp_path: Path, audio_s: float, suffix: str) -> None:
    """The clock of each part begins again; the second one's sound belongs to the second one's pictures."""
    part = make_video(tmp_path / "part.ts", audio_s=audio_s)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 3)
    out = through(joined, tmp_path / f"out.{suffix}")
    assert len(packets(out, "video")) == 150
    one = [float(start) for start, *_ in packets(part, "audio")]
    found = [float(start) for start, *_ in packets(out, "audio")]
    expected: list[float] = []
    for n in range(3):  # sound that is longer than its pictures keeps its place
        expected += [time + 2.0 * n for time in one if not expected or time + 2.0 * n > expected[-1]]
    assert len(expected) >= 3 * len(one) - 50
    np.testing.assert_allclose(np.subtract(found, found[0]), np.subtract(expected, expected[0]), atol=0.002)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
@pytest.mark.parametrize("starts", [(0, 36_000, 20), (36_000, 0, 72_000), (100, 97, 94)])
def test_recordings_joined_with_any_jump_stay_in_step(tmp_path: Path, starts: tuple[int, ...], suffix: str) -> None:
    parts = [make_video(tmp_path / f"{start}.ts", start_s=start) for start in starts]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    out = through(joined, tmp_path / f"out.{suffix}")
    video, audio = packets(out, "video"), packets(out, "audio")
    assert len(video) == 150
    assert float(end(video)) == pytest.approx(6.0, abs=0.05)
    assert float(end(audio)) == pytest.approx(6.0, abs=0.1)
    gaps = np.diff([float(start) for start, *_ in audio])
    assert gaps.min() > 0
    assert gaps.max() < 0.09  # one packet at a joint may overlap the one before it, and is left out
    if suffix != "webm":  # there they are encoded anew
        sizes = [size for part in parts for *_, size in packets(part, "audio")]
        assert len(sizes) - len(audio) <= 6


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
@pytest.mark.parametrize("by", [37_600 * 90_000, -3 * 90_000])
def test_single_wrong_stamps_of_the_video_do_not_move_the_sound(tmp_path: Path, by: int, suffix: str) -> None:
    source = make_video(tmp_path / "in.ts", start_s=50_000)
    with av.open(str(source)) as container:
        sound = container.streams.audio[0].index
        pid = container.streams.audio[0].id
    assert sound == 1
    data = restamp(source.read_bytes(), {10, 25, 40}, by, skip_pid=pid)
    (tmp_path / "wrong.ts").write_bytes(data)
    out = through(tmp_path / "wrong.ts", tmp_path / f"out.{suffix}")
    right = through(source, tmp_path / f"right.{suffix}")
    shown = [[float(start) for start, *_ in packets(path, "audio")] for path in (out, right)]
    np.testing.assert_allclose(shown[0], shown[1], atol=0.0011)
    assert float(end(packets(out, "video"))) == pytest.approx(2.0, abs=0.08)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("last", [0.5, 3.0, 5.0])
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 26])
def test_the_last_frame_is_shown_as_long_as_the_source_says(
    tmp_path: Path, frames: int, last: float, suffix: str
) -> None:
    """Slides: the sound goes on under the last one, and so does the picture."""
    slides = tmp_path / "slides.mp4"
    total = frames - 1 + last
    with av.open(str(slides), "w") as out:
        video = out.add_stream("libx264", rate=1, width=64, height=48, time_base=Fraction(1, 1000))
        sound = out.add_stream("aac", rate=48000)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(image(i), format="bgr24")
            frame.pts, frame.time_base = 1000 * i, Fraction(1, 1000)
            for packet in video.encode(frame):
                out.mux(packet)
        held = video.encode(None)
        for packet in held:
            packet.duration = round(1000 * last) if packet.pts == 1000 * (frames - 1) else 1000
        if held and held[-1].pts != 1000 * (frames - 1):
            held[-1].duration = round(1000 * (total - held[-1].pts / 1000))
        out.mux(held)
        chunk = av.AudioFrame.from_ndarray(
            np.zeros((2, int(48000 * total)), np.float32), format="fltp", layout="stereo"
        )
        chunk.sample_rate, chunk.pts, chunk.time_base = 48000, 0, Fraction(1, 48000)
        out.mux(sound.encode(chunk))
        out.mux(sound.encode(None))
    with av.open(str(slides)) as container:
        frames_read = list(container.decode(video=0))
        told = float((frames_read[-1].pts + frames_read[-1].duration) * frames_read[-1].time_base)
    with open_source(slides) as source:
        assert [f.duration for f in source][-1] == pytest.approx(told - (frames - 1), abs=0.002)
    out_path = through(slides, tmp_path / f"out.{suffix}")
    with av.open(str(out_path)) as container:
        assert container.duration / 1e6 == pytest.approx(max(told, total), abs=0.05)
        if suffix in ("mp4", "mov"):
            stream = container.streams.video[0]
            assert float(stream.duration * stream.time_base) == pytest.approx(told, abs=0.002)
    if suffix in ("mkv", "webm"):
        # MKV has no negative times: all of it moves by the codec's priming.
        assert float(end(packets(out_path, "video"))) == pytest.approx(told, abs=0.025)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_sound_is_a_gap_and_not_the_end(tmp_path: Path, seed: int) -> None:
    source = make_video(tmp_path / "in.ts")
    data = bytearray(source.read_bytes())
    headers = [i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] & 0xF6 == 0xF0]  # ADTS, ISO 13818-7
    assert len(headers) > 80
    for i in np.random.default_rng(seed).choice(headers[10:-10], 5, replace=False):
        data[i + 1] = 0
    source.write_bytes(data)
    out = through(source, tmp_path / "out.mp4")
    assert len(packets(out, "video")) == 50
    assert 60 < len(packets(out, "audio")) < len(headers)
    assert float(end(packets(out, "audio"))) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("rate", [6000, 37800, 192000])
def test_rates_that_the_encoder_does_not_have(tmp_path: Path, rate: int) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=25, width=64, height=48)
        sound = out.add_stream("pcm_s16le", rate=rate)
        sound.codec_context.layout = "mono"
        for i in range(25):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image(i), format="bgr24")))
        out.mux(video.encode(None))
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, rate), np.int16), format="s16", layout="mono")
        chunk.sample_rate, chunk.pts, chunk.time_base = rate, 0, Fraction(1, rate)
        out.mux(sound.encode(chunk))
    result = through(source, tmp_path / "out.mp4")
    assert float(end(packets(result, "audio"))) == pytest.approx(1.0, abs=0.2)
