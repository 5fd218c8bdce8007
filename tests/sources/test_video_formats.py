"""What a decoded picture looks like: codecs, pixel formats, colours, orientation, fields, pixel shape."""

from fractions import Fraction
from itertools import product

import av
import cv2
import numpy as np
import pytest

from perception.picture.conversions import to_bgr
from perception.picture.decoder_frames import Converter
from perception.sources import open_source
from tests.media import corners, make_video, quadrants, read_stamp, stamp

FORMATS = [
    ("libx264", "yuv420p", "mp4"),
    ("libx264", "yuv422p", "mkv"),
    ("libx264", "yuv444p", "mp4"),
    ("libx264", "yuv420p10le", "mp4"),
    ("libx264", "gray", "mkv"),
    ("libx264", "yuv420p", "avi"),
    ("libx264", "yuv420p", "flv"),
    ("libx264", "yuv420p", "ts"),
    ("libx264", "yuv420p", "h264"),
    ("libx265", "yuv420p10le", "mkv"),
    ("libvpx-vp9", "yuv420p", "webm"),
    ("libvpx-vp9", "yuva420p", "webm"),
    ("mjpeg", "yuvj420p", "avi"),
    ("mjpeg", "yuvj422p", "mov"),
    ("mpeg2video", "yuv420p", "ts"),
    ("mpeg4", "yuv420p", "avi"),
    ("prores_ks", "yuv422p10le", "mov"),
    ("prores_ks", "yuva444p10le", "mov"),
    ("ffv1", "gray", "mkv"),
    ("ffv1", "gray16le", "mkv"),
    ("ffv1", "bgra", "mkv"),
    ("png", "rgba", "mov"),
    ("qtrle", "argb", "mov"),
    ("rawvideo", "nv12", "nut"),
    ("gif", "rgb8", "gif"),
]


@pytest.mark.parametrize(("codec", "pix_fmt", "ending"), FORMATS)
def test_every_frame_of_every_format_comes_in_order_and_on_time(tmp_path, codec, pix_fmt, ending):
    path = make_video(tmp_path / f"v.{ending}", codec=codec, pix_fmt=pix_fmt, frames=9, size_wh=(96, 64))
    with open_source(path) as source:
        frames = list(source)
    assert [read_stamp(f.image) for f in frames] == list(range(9))
    assert [f.index for f in frames] == list(range(9))
    np.testing.assert_allclose([f.time for f in frames], np.arange(9) / 25, atol=2e-3)  # FLV counts milliseconds
    for frame in frames:
        assert frame.image.shape == (64, 96, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
    assert (source.info.width, source.info.height) == (96, 64)
    assert source.dropped == source.corrupt == 0


def picture(bgr, matrix, full_range, pix_fmt, size_wh=(32, 16)):
    """A frame of one colour, from the definition of the matrix (ITU-R BT.601, BT.709, BT.2020)."""
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[matrix]
    b, g, r = (c / 255 for c in bgr)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    bits = 10 if "10" in pix_fmt else 8
    unit, top = 2 ** (bits - 8), 2**bits - 1
    if full_range:
        values = y * top, u * top + 128 * unit, v * top + 128 * unit
    else:
        values = (16 + 219 * y) * unit, (128 + 224 * u) * unit, (128 + 224 * v) * unit
    frame = av.VideoFrame(*size_wh, pix_fmt)
    for plane, value in zip(frame.planes, values, strict=True):
        samples = np.frombuffer(memoryview(plane), np.uint16 if bits > 8 else np.uint8)
        samples[:] = min(round(value), top)
    return frame


COLORS = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (128, 128, 128), (255, 255, 255), (0, 0, 0), (20, 90, 200)]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize(("matrix", "tag"), [("bt601", 5), ("bt601", 6), ("bt709", 1), ("bt2020", 9)])
@pytest.mark.parametrize("full_range", [False, True])
def test_colors_come_back_within_three_levels(pix_fmt, matrix, tag, full_range):
    for color in COLORS:
        frame = picture(color, matrix, full_range, pix_fmt)
        frame.colorspace, frame.color_range = tag, 2 if full_range else 1
        planes, image = Converter()(frame)
        if planes is not None:
            assert (planes.matrix, planes.full_range) == (matrix, full_range)
            image = to_bgr(planes)
        assert np.abs(image.astype(int) - color).max() <= 3, color


@pytest.mark.parametrize("size_wh", [(64, 48), (1280, 720), (1920, 1080)])
def test_untagged_colors_are_bt601_limited_whatever_the_size(tmp_path, size_wh):
    colors = COLORS[:3]
    pictures = [picture(c, "bt601", False, "yuv420p", size_wh) for c in colors]
    path = make_video(
        tmp_path / "v.mp4", pictures=pictures, size_wh=size_wh, options={"crf": "1", "preset": "ultrafast"}
    )
    with open_source(path) as source:
        for frame, color in zip(source, colors, strict=True):
            assert frame.planes.matrix == "bt601"
            assert not frame.planes.full_range
            assert np.abs(frame.image.astype(int) - color).max() <= 5
    ok, opencv = cv2.VideoCapture(str(path)).read()
    assert ok
    assert np.abs(opencv.astype(int) - colors[0]).max() <= 5  # the same choice as OpenCV's


@pytest.mark.parametrize(("matrix", "tag"), [("bt601", 6), ("bt709", 1)])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_color_tags_of_a_file_are_followed(tmp_path, matrix, tag, full_range, pix_fmt):
    pictures = [picture(c, matrix, full_range, pix_fmt, (64, 48)) for c in COLORS]
    path = make_video(
        tmp_path / "v.mp4",
        pictures=pictures,
        size_wh=(64, 48),
        pix_fmt=pix_fmt,
        colorspace=tag,
        color_range=2 if full_range else 1,
        options={"crf": "1"},
    )
    with open_source(path) as source:
        for frame, color in zip(source, COLORS, strict=True):
            assert np.abs(frame.image.astype(int) - color).max() <= 5


def test_planes_are_views_of_the_decoders_memory_and_outlive_it(tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=30, size_wh=(90, 50))
    with open_source(path) as source:
        frames = list(source)
    for i, frame in enumerate(frames):
        planes = frame.planes
        assert frame.picture is planes
        assert planes.y.shape == (50, 90)
        assert planes.u.shape == planes.v.shape == (25, 45)
        assert not planes.y.flags.owndata
        assert planes.y.strides[1] == 1
        assert planes.y.strides[0] > 90  # the decoder pads its lines
        assert read_stamp(planes.y) == i


@pytest.mark.parametrize("size_wh", [(81, 48), (80, 47), (81, 47), (41, 5)])
@pytest.mark.parametrize(("codec", "pix_fmt"), [("ffv1", "yuv420p"), ("ffv1", "yuv420p10le"), ("ffv1", "yuv422p")])
def test_odd_sizes(tmp_path, size_wh, codec, pix_fmt):
    path = make_video(tmp_path / "v.mkv", codec=codec, pix_fmt=pix_fmt, size_wh=size_wh, frames=5)
    with open_source(path) as source:
        frames = list(source)
    assert [read_stamp(f.image) for f in frames] == list(range(5))
    for frame in frames:
        assert (frame.width, frame.height) == size_wh
        assert frame.image.shape == (*size_wh[::-1], 3)
        if pix_fmt != "yuv422p":
            assert frame.planes.u.shape == ((size_wh[1] + 1) // 2, (size_wh[0] + 1) // 2)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("ffv1", "yuv420p"), ("ffv1", "bgra"), ("ffv1", "gray")])
def test_one_pixel(tmp_path, codec, pix_fmt):
    images = [np.full((1, 1, 3), 200, np.uint8)] * 2
    path = make_video(tmp_path / "v.mkv", codec=codec, pix_fmt=pix_fmt, size_wh=(1, 1), images=images)
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) == 2
    assert frames[0].image.shape == (1, 1, 3)
    assert np.abs(frames[0].image.astype(int) - 200).max() <= 3


def test_8k(tmp_path):
    size_wh = (7680, 4320)
    path = make_video(tmp_path / "v.mp4", codec="mjpeg", pix_fmt="yuvj420p", size_wh=size_wh, frames=1)
    with open_source(path) as source:
        frames = list(source)
        assert (source.info.width, source.info.height) == size_wh
    assert len(frames) == 1
    assert read_stamp(frames[0].planes.y) == 0
    assert frames[0].planes.full_range


# Where the four corners go, from what the display matrix means: turned counterclockwise, then mirrored.
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize(("size_wh", "rotation", "hflip", "vflip"), [
    *product([(64, 48)], [0, 90, -90, 180], [False, True], [False]),
    ((64, 48), 0, False, True),
    ((63, 47), 90, False, False),
])  # fmt: skip
def test_rotation_and_mirroring_are_applied(tmp_path, pix_fmt, size_wh, rotation, hflip, vflip):
    if size_wh[0] % 2 and pix_fmt != "yuv444p":
        pytest.skip("H.264 has odd sizes in 4:4:4 only")
    stored = quadrants(size_wh)
    path = make_video(
        tmp_path / "v.mp4",
        images=[stored] * 2,
        size_wh=size_wh,
        pix_fmt=pix_fmt,
        rotation=rotation,
        hflip=hflip,
        vflip=vflip,
        options={"crf": "5"},
    )
    expected = np.rot90(stored, rotation // 90)
    if hflip:
        expected = expected[:, ::-1]
    if vflip:
        expected = expected[::-1]
    with av.open(str(path)) as container:
        tagged = next(container.decode(video=0)).rotation
    if not hflip and not vflip:
        assert tagged % 360 == rotation % 360  # PyAV counts counterclockwise, too
    with open_source(path) as source:
        assert (source.info.width, source.info.height) == expected.shape[1::-1]
        for frame in source:
            assert (frame.width, frame.height) == expected.shape[1::-1]
            assert corners(frame.image) == corners(expected)
            assert (frame.planes is not None) == (pix_fmt != "yuv444p")


def test_interlaced_frames_are_deinterlaced(tmp_path):
    # A bar that moves between the two fields of a frame: combed as stored, smooth when deinterlaced.
    images = []
    for i in range(12):
        image = np.full((64, 96, 3), 40, np.uint8)
        for field in (0, 1):
            left = 8 + 6 * i + 3 * field
            image[field::2, left : left + 12] = 220
        images.append(image)
    path = make_video(tmp_path / "v.mp4", images=images, size_wh=(96, 64), interlaced=True, options={"crf": "5"})

    def combing(frames):
        luma = [f.image[..., 1].astype(int) for f in frames]
        return np.mean([np.abs(y[1:-1] - (y[:-2] + y[2:]) / 2).mean() for y in luma[1:-1]])

    with open_source(path, deinterlace=False) as source:
        raw = list(source)
    with open_source(path) as source:
        smooth = list(source)
    assert combing(smooth) < combing(raw) / 4
    assert len(smooth) == len(raw) == 12
    assert [f.pts for f in smooth] == [f.pts for f in raw]
    assert [f.time for f in smooth] == [f.time for f in raw]
    assert smooth[0].planes is not None


def test_progressive_frames_do_not_pass_the_deinterlacer(tmp_path):
    path = make_video(tmp_path / "v.mkv", codec="ffv1", frames=5)
    with open_source(path) as a, open_source(path, deinterlace=False) as b:
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.image, y.image)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p"])
@pytest.mark.parametrize(("sar", "width"), [(Fraction(16, 11), 116), (Fraction(8, 9), 71), (Fraction(1000, 1001), 80)])
def test_pixels_become_square(tmp_path, pix_fmt, sar, width):
    path = make_video(tmp_path / "v.mkv", size_wh=(80, 48), sar=sar, frames=4, pix_fmt=pix_fmt)
    with open_source(path) as source:
        assert (source.info.width, source.info.height) == (width, 48)
        frames = list(source)
    assert [f.image.shape for f in frames] == [(48, width, 3)] * 4
    assert [read_stamp(f.image) for f in frames] == [0, 1, 2, 3]


def test_rotated_pixels_become_square_before_they_turn(tmp_path):
    path = make_video(tmp_path / "v.mp4", size_wh=(80, 48), sar=Fraction(3, 2), rotation=90, frames=2)
    with open_source(path) as source:
        assert (source.info.width, source.info.height) == (48, 120)
        assert next(source).image.shape == (120, 48, 3)


def test_alpha_is_dropped_and_colors_stay(tmp_path):
    image = np.zeros((48, 64, 4), np.uint8)
    image[:] = (30, 90, 200, 0)  # wholly transparent
    pictures = [av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "bgra")]
    path = make_video(tmp_path / "v.mkv", pictures=pictures, size_wh=(64, 48), codec="ffv1", pix_fmt="bgra")
    with open_source(path) as source:
        frame = next(source)
    assert np.abs(frame.image.astype(int) - (30, 90, 200)).max() <= 1


def test_threads_do_not_change_frames(tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=40)
    with open_source(path, threads=1) as one, open_source(path, threads=3) as three:
        for a, b in zip(one, three, strict=True):
            assert a.pts == b.pts
            np.testing.assert_array_equal(a.planes.y, b.planes.y)


def test_stamps_are_readable():
    for index in (0, 1, 2, 37, 1023):
        assert read_stamp(stamp(index)) == index
