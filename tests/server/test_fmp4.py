"""Segments as a player sees them: FFmpeg decodes what the encoder and the socket give."""

import io
from itertools import pairwise

import av
import numpy as np
import pytest

from perception.drawing.canvas import make_canvas
from perception.picture.buffer_pool import BufferPool
from perception.server.viewers.fragmented_mp4 import MAX_BEHIND, SegmentEncoder, SegmentViewer, length_prefixed
from tests.media import make_video, read_stamp, stamp


def boxes(data):
    """Names and contents of the boxes, one level deep."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        assert size >= 8
        assert at + size <= len(data)
        found.append((data[at + 4 : at + 8].decode(), data[at + 8 : at + size]))
        at += size
    return found


def decode(data):
    """Numbers that are stamped on the frames, and the times at which they are shown."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
        return [read_stamp(f.to_ndarray(format="bgr24")) for f in frames], [float(f.pts * f.time_base) for f in frames]


@pytest.mark.parametrize("size_wh", [(80, 48), (322, 182), (81, 49)])
def test_every_frame_is_a_segment_at_once(size_wh):
    encoder = SegmentEncoder(stamp(0, size_wh), fps=25)
    segments = []
    times = [100.0 + t for t in (0, 0.04, 0.08, 0.2, 0.21, 0.25, 1.0, 1.04)]
    for i, t in enumerate(times):
        made = encoder.encode(stamp(i, size_wh), t, key=i == 5)
        assert len(made) == 1  # no frame of delay
        segments += made
    encoder.close()
    head = segments[0].head
    assert [name for name, _ in boxes(head.data)] == ["ftyp", "moov"]
    assert head.mime.startswith("video/mp4; codecs=avc1.")
    assert len(head.mime) == len("video/mp4; codecs=avc1.64001f")
    assert (head.width, head.height) == (size_wh[0] + size_wh[0] % 2, size_wh[1] + size_wh[1] % 2)
    for segment in segments:
        assert [name for name, _ in boxes(segment.data)] == ["moof", "mdat"]
    assert [s.key for s in segments] == [True, False, False, False, False, True, False, False]
    numbers, shown = decode(head.data + b"".join(s.data for s in segments))
    assert numbers == list(range(8))
    assert shown == pytest.approx(times, abs=1e-4)
    # Who comes late begins with the key frame in the middle.
    numbers, shown = decode(head.data + b"".join(s.data for s in segments[5:]))
    assert numbers == [5, 6, 7]
    assert shown == pytest.approx(times[5:], abs=1e-4)


def test_times_that_do_not_increase_are_moved_on():
    encoder = SegmentEncoder(stamp(0))
    data = b"".join(s.data for t in (1.0, 1.0, 0.5, 2.0) for s in encoder.encode(stamp(3), t))
    encoder.close()
    _, shown = decode(encoder.head.data + data)
    assert len(shown) == 4
    assert all(b > a for a, b in pairwise(shown))
    assert shown[-1] == 2.0


@pytest.mark.parametrize(("matrix", "space", "full"), [("bt601", 6, False), ("bt709", 1, False), ("bt709", 1, True)])
def test_planes_keep_their_colours(tmp_path, matrix, space, full):
    path = make_video(tmp_path / "v.mp4", frames=1, colorspace=space, color_range=2 if full else 1)
    with av.open(str(path)) as container:
        from perception.picture.decoder_frames import Converter

        planes, _ = Converter()(next(container.decode(video=0)))
    picture = make_canvas(planes, BufferPool()).picture
    assert (picture.matrix, picture.full_range) == (matrix, full)
    encoder = SegmentEncoder(picture)
    data = encoder.head.data + encoder.encode(picture, 0.0)[0].data
    encoder.close()
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (space, 2 if full else 1)
        luma = frame.to_ndarray()[: frame.height]
    assert np.abs(luma.astype(int) - picture.y).mean() < 3


def test_length_prefixes():
    units = [b"\x67\x42\x00\x01\x02", b"\x65" + bytes(range(4, 200)), b"\x41\x00\x00\x03\x01"]
    for codes in (
        [b"\x00\x00\x00\x01"] * 3,
        [b"\x00\x00\x01"] * 3,
        [b"\x00\x00\x00\x01", b"\x00\x00\x01", b"\x00\x00\x01"],
    ):
        data = b"".join(code + unit for code, unit in zip(codes, units, strict=True))
        assert length_prefixed(data) == b"".join(len(u).to_bytes(4, "big") + u for u in units)
    assert length_prefixed(b"") == b""


class FakeSegment:
    def __init__(self, number, key):
        self.number, self.key = number, key


def test_a_viewer_who_falls_behind_goes_on_with_a_key_frame():
    import asyncio

    async def play():
        class Nobody:
            def _remove(self, viewer):
                pass

        viewer = SegmentViewer(Nobody())
        for number in range(7):
            viewer.offer(FakeSegment(number, key=number == 4))
        taken = [(await viewer.next(1)).number for _ in range(3)]
        assert taken == [4, 5, 6]
        assert viewer.missed == 4
        assert await viewer.next(0.01) is None
        for number in range(7, 7 + MAX_BEHIND + 5):
            viewer.offer(FakeSegment(number, key=number == 7 + MAX_BEHIND + 3))
        taken = []
        while (segment := await viewer.next(0.01)) is not None:
            taken.append(segment.number)
        assert taken == [7 + MAX_BEHIND + 3, 7 + MAX_BEHIND + 4]
        viewer.leave()
        assert viewer.over
        assert await viewer.next(60) is None

    asyncio.run(play())
