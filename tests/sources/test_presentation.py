"""Pictures as a screen would show them: pixels of changing shape, HDR; and counts that are no counts."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest

from perception.sinks import open_sink
from perception.sources import open_source
from perception.types import Prediction
from tests.media import make_video, stamp


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("bframes", ["0", "2"])
@pytest.mark.parametrize(
    "shapes",
    [
        [((160, 96), (1, 1)), ((80, 96), (2, 1)), ((160, 96), (1, 1))],
        [((160, 96), (4, 3)), ((160, 96), (1, 1)), ((160, 96), (16, 11))],
        [((160, 96), (1, 1)), ((96, 160), (1, 1)), ((160, 96), (2, 1)), ((160, 48), (1, 2))],
    ],
)
def test_each_frame_has_the_shape_of_its_own_pixels(tmp_path, shapes, bframes, codec):
    if codec == "mpeg2video":  # it knows only shapes of the whole picture
        shapes = [(size, Fraction(4, 3) * size[1] / size[0]) for size, _ in shapes]
    parts = []
    for n, (size, sar) in enumerate(shapes):
        sar = sar if isinstance(sar, Fraction) else Fraction(*sar)
        path = tmp_path / f"{n}.ts"
        options = {"bf": bframes}
        make_video(path, frames=20, size_wh=size, sar=sar, codec=codec, options=options)
        parts.append((path.read_bytes(), (round(size[0] * sar), size[1])))
    (tmp_path / "joined.ts").write_bytes(b"".join(data for data, _ in parts))
    with open_source(tmp_path / "joined.ts") as source:
        sizes = [(f.width, f.height) for f in source]
    expected = [size for _, size in parts for _ in range(20)]
    assert len(sizes) >= len(expected) - 2 * len(parts)
    # A decoder of MPEG-2 gives a frame less at each joint.
    wrong = [i for i, size in enumerate(sizes) if size not in expected[i : i + 1 + len(expected) - len(sizes)]]
    assert wrong == []
    assert list(dict.fromkeys(sizes)) == list(dict.fromkeys(expected))


def pq(nits):
    """The code value of PQ, 0..1 (SMPTE ST 2084)."""
    y = (np.asarray(nits, float) / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def bt709(linear):
    """The code value, 0..1, of a display-referred SDR picture (ITU-R BT.1886, gamma 2.4)."""
    return np.clip(linear, 0, 1) ** (1 / 2.4)


def hdr_video(path, codes, transfer, codec="libx264"):
    """Grey fields of these code values, 0..1, in ten bits."""
    width = 32 * len(codes)
    luma = np.repeat(np.round(64 + 876 * np.asarray(codes)).astype(np.uint16), 32)
    image = np.concatenate([np.tile(luma, (96, 1)), np.full((48, width), 512, np.uint16)])
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = width, 96, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = transfer, 9, 9, 1
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(image, format="yuv420p10le")
            frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
            frame.pts, frame.time_base = i, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def fields(path, count):
    with open_source(path) as source:
        frame = next(source)
        image = frame.image
        matrix = None if frame.planes is None else frame.planes.matrix
    return np.median(image[20:76].reshape(56, count, 32, 3)[:, :, 8:24], axis=(0, 2)), matrix


# FFmpeg takes seconds of a core to prepare the conversion.
@pytest.mark.parametrize("ending", ["mkv", *(pytest.param(e, marks=pytest.mark.slow) for e in ("mov", "mp4"))])
def test_pq_becomes_sdr_by_the_formula(tmp_path, ending):
    nits = np.array([0, 1, 5, 20, 50, 100, 150, 203, 400, 1000, 4000])
    found, matrix = fields(hdr_video(tmp_path / f"v.{ending}", pq(nits), 16), len(nits))
    assert matrix == "bt709"
    assert np.ptp(found, axis=1).max() <= 4  # grey stays grey
    expected = 255 * bt709(nits / 203)
    np.testing.assert_allclose(found.mean(1), expected, atol=14)
    assert found[7].mean() > 245  # reference white
    assert np.all(np.diff(found.mean(1)) >= -1)


def test_hlg_becomes_sdr(tmp_path):
    codes = np.array([0, 0.1, 0.25, 0.38, 0.5, 0.6, 0.7, 0.75, 0.9, 1.0])
    found, _ = fields(hdr_video(tmp_path / "v.mov", codes, 18), len(codes))
    grey = found.mean(1)
    assert grey[7] > 245  # reference white of HLG is 75 % (ITU-R BT.2408)
    assert np.all(np.diff(grey) >= -1)
    assert 95 < grey[3] < 135  # 38 % is grey card, 26 cd/m2 of 203


def test_sdr_is_not_touched_and_what_is_written_is_tagged(tmp_path):
    codes = np.linspace(0, 1, 8)
    plain, _ = fields(hdr_video(tmp_path / "sdr.mov", codes, 1), len(codes))
    np.testing.assert_allclose(plain.mean(1), 255 * codes, atol=4)
    path = hdr_video(tmp_path / "v.mov", pq([0, 50, 203]), 16)
    with open_source(path) as source, open_sink(tmp_path / "o.mp4") as sink:
        sink.open(source.info)
        for frame in source:
            sink.write(Prediction(frame))
    with av.open(str(tmp_path / "o.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_trc, frame.color_primaries) == (1, 1, 1)


@pytest.mark.parametrize("ending", ["mkv", "webm", "mp4", "avi", "ts", "flv"])
@pytest.mark.parametrize("seed", range(3))
def test_a_variable_rate_is_no_missing_frame(tmp_path, caplog, ending, seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice([0.04, 0.04, 0.04, 0.2, 2.0], 60)).tolist()
    codec = "libvpx" if ending == "webm" else "libx264"
    path = make_video(tmp_path / f"v.{ending}", times=[t - times[0] for t in times], codec=codec)
    with caplog.at_level(logging.WARNING, "perception"), open_source(path) as source:
        assert len(list(source)) == 60
    assert not caplog.records


@pytest.mark.parametrize("audio", [None, "aac"])
def test_sound_that_is_longer_than_the_video_is_no_missing_frame(tmp_path, caplog, audio):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 80, 48, "yuv420p"
        sound = out.add_stream(audio, rate=48_000) if audio else None
        for i in range(50):
            out.mux(video.encode(av.VideoFrame.from_ndarray(stamp(i), "bgr24")))
        out.mux(video.encode(None))
        if sound is not None:
            chunk = av.AudioFrame.from_ndarray(np.zeros((1, 480_000), np.float32), format="fltp", layout="mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = 48_000, 0, Fraction(1, 48_000)
            out.mux(sound.encode(chunk))
            out.mux(sound.encode(None))
    with caplog.at_level(logging.WARNING, "perception"), open_source(path) as source:
        assert len(list(source)) == 50
    assert not caplog.records
