"""Frames of a live stream that are wanted far apart: which packets are decoded for them, and that they are right."""

import av
import numpy as np
import pytest

from perception.sources import open_source
from perception.sources.thinner import Spacing, Thinner
from tests.media import make_video, read_stamp, stamp, tcp_server
from tests.rtsp_camera import access_units, rtsp_camera

FPS = 25


def video(path, keys, frames, b_frames=0, codec="libx264"):
    """A video whose frames show their numbers; those of ``keys`` are key frames, and no others."""

    def pictures():
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(stamp(number), "bgr24").reformat(format="yuv420p")
            picture.pict_type = av.video.frame.PictureType.I if number in keys else av.video.frame.PictureType.NONE
            yield picture

    x264 = {"forced-idr": "1", "x264-params": f"keyint=infinite:scenecut=0:bframes={b_frames}:b-adapt=0"}
    options = x264 if codec == "libx264" else {}
    return make_video(path, pictures=pictures(), codec=codec, options=options, keyint=None if options else 1)


def thinned(path, spacing, change=None):
    """Play a file as if it came live: packet by packet, at the times that it says.

    Args:
        path: of the file.
        spacing: what is wanted.
        change: of a packet's number: another spacing from there on, or None.

    Returns:
        the numbers of the frames that were taken, each with the seconds at which it was; packets that were decoded, and
        packets that came; the thinner.
    """
    left_out = []
    thinner = Thinner(lambda: left_out.append(1))
    thinner.spacing = spacing
    taken, decoded, came = [], 0, 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        codec = stream.codec_context
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if change is not None and (other := change(came)) is not None:
                thinner.spacing = other
            now = came / FPS
            came += 1
            due = thinner.admit(packet, now)
            if due.anew:
                codec.flush_buffers()
            decoded += len(due.packets)
            for number, each in enumerate(due.packets, 1):
                shown = codec.decode(each)
                wanted = [frame for frame in shown if number == len(due.packets) and thinner.takes(frame.key_frame)]
                taken += [(read_stamp(luma(frame)), now) for frame in wanted]
    assert len(left_out) <= came - len(taken)
    return taken, decoded, came, thinner


def luma(frame):
    """uint8 [H, W]: of a frame in planes, as it is."""
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def every(gop, frames):
    return set(range(0, frames, gop))


@pytest.fixture(scope="module")
def regular(tmp_path_factory):
    """700 frames with a key frame each so many."""
    folder, made = tmp_path_factory.mktemp("regular"), {}

    def get(gop, b_frames):
        key = gop, b_frames
        if key not in made:
            made[key] = video(folder / f"{gop}-{b_frames}.mp4", every(gop, 700), 700, b_frames)
        return made[key]

    return get


def test_key_frames_alone(tmp_path):
    frames = 500
    path = video(tmp_path / "v.mp4", every(FPS, frames), frames)
    taken, decoded, _, thinner = thinned(path, Spacing(enough=1.0))
    assert [number for number, _ in taken if number > FPS] == list(range(50, frames, FPS))
    # Two groups pass until the distance of key frames is known.
    assert decoded <= 2 * FPS + frames / FPS
    assert thinner.keys_only
    assert thinner.share == pytest.approx(1 / FPS)


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("gop", [10, 25, 50, 100])
@pytest.mark.parametrize("step", [0.2, 0.4, 0.64, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("kind", ["least", "enough"])
def test_the_rate_is_met_with_right_pictures_and_less_is_decoded(regular, b_frames, gop, step, kind):
    taken, decoded, came, _ = thinned(regular(gop, b_frames), Spacing(**{kind: step}))
    numbers, times = np.array(taken).T
    # Each shows the frame of its time: the one that came with its packet, or, where frames are sent in another order
    # than they are shown in, one of a few before.
    late = np.round(times * FPS - numbers)
    assert np.all((late >= 0) & (late <= (0 if not b_frames else 4)))
    delay = 4 if b_frames else 0
    if 4 * step * FPS < gop:  # nothing to be gained
        assert decoded == came
    if kind == "enough" and decoded == came:
        assert len(taken) >= came - delay
        return
    settled = times > 2 * gop / FPS + 1
    assert np.ptp(times[settled]) / step == pytest.approx(settled.sum() - 1, abs=1)
    gaps = np.diff(times[settled])
    assert gaps.max() <= 2 * step + 0.1  # one half a step early, the next half a step late
    # What a frame costs that is wanted at each step of an even grid: all before it, back to its key frame or to the
    # frame before. No more is decoded than that.
    dues = np.arange(0, came, step * FPS)
    until = {}
    for due in dues.astype(int):
        until[due // gop] = due % gop + 1
    if decoded < came:
        assert decoded <= sum(until.values()) + (delay + 1) * len(until) + 3 * gop
    if step * FPS >= gop:
        assert decoded <= 3 * gop + (1 + delay) * came / gop


def test_all_frames_again_as_soon_as_they_are_wanted(tmp_path):
    frames = 400
    path = video(tmp_path / "v.mp4", every(50, frames), frames)
    for at in range(210, 260, 7):

        def change(number, at=at):
            return Spacing() if number == at else None

        taken, _, _, _ = thinned(path, Spacing(enough=2.0), change)
        numbers = [number for number, _ in taken]
        assert numbers[numbers.index(at) :] == list(range(at, frames))  # the very next one
        assert len([n for n in numbers if 100 < n < at]) <= 3


@pytest.mark.parametrize("b_frames", [0, 3])
def test_a_key_frame_that_does_not_come_costs_no_picture(tmp_path, b_frames):
    """Cameras that send one where something moves."""
    keys = {0, 25, 50, 75, 100, 125, 325, 350, 375, 400}
    frames = 450
    path = video(tmp_path / "v.mp4", keys, frames, b_frames)
    taken, _, _, _ = thinned(path, Spacing(enough=1.0))
    numbers, times = np.array(taken).T
    late = np.round(times * FPS - numbers)
    assert np.all((late >= 0) & (late <= (4 if b_frames else 0)))
    assert np.diff(times).max() <= 2.0
    assert [n for n in numbers.tolist() if 60 < n < 130] == [75, 100, 125]
    assert 6 <= len([n for n in numbers.tolist() if 130 < n < 320]) <= 9
    assert {325, 350, 375, 400} & set(numbers.tolist())


def test_where_each_frame_is_a_key_frame_only_those_that_are_wanted_are_decoded(tmp_path):
    frames = 300
    path = video(tmp_path / "v.mkv", every(1, frames), frames, codec="mpeg4")
    taken, decoded, _, _ = thinned(path, Spacing(least=0.4))
    assert decoded <= len(taken) + 3
    assert len(taken) == pytest.approx(300 / 10, abs=2)
    assert all(number == pytest.approx(now * FPS) for number, now in taken)


def test_no_more_is_held_than_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("perception.sources.thinner._MOST_HELD_BYTES", 500)
    frames = 300
    path = video(tmp_path / "v.mp4", every(50, frames), frames)
    thinner = Thinner()
    thinner.spacing = Spacing(enough=5.0)
    with av.open(str(path)) as container:
        for number, packet in enumerate(container.demux(video=0)):
            if packet.size:
                for _ in thinner.admit(packet, number / FPS).packets:
                    thinner.takes(packet.is_keyframe)
                assert sum(each.size for each in thinner._held) <= 500


def test_who_has_fallen_behind_catches_up(regular):
    """On a machine that takes ten times as long to decode a frame as there is, as one that is crowded does."""
    thinner = Thinner()
    thinner.spacing = Spacing(enough=4.0)
    now, behind = 0.0, []
    with av.open(str(regular(50, 0))) as container:
        for number, packet in enumerate(container.demux(video=0)):
            if packet.size:
                now = max(now, number / FPS)
                behind.append(now - number / FPS)
                for each in thinner.admit(packet, now, number / FPS).packets:
                    now += 10 / FPS
                    thinner.takes(each.is_keyframe)
    assert max(behind) > 15  # until the first groups have come
    assert behind[-1] < 1 and thinner.share < 0.1


def test_without_key_frames_all_is_decoded(tmp_path):
    path = video(tmp_path / "v.mp4", {0}, 200)
    taken, decoded, came, _ = thinned(path, Spacing(least=1.0))
    assert decoded == came
    assert [number for number, _ in taken] == list(range(0, 200, 25))


def test_an_rtsp_camera(tmp_path):
    """What is asked for while it runs; frames show what the camera's do."""
    units = access_units(tmp_path, frames=100, keyint=10)
    with (
        tcp_server(rtsp_camera(units)) as port,
        open_source(f"rtsp://127.0.0.1:{port}/live", timeout=10) as source,
    ):
        assert source.thinner is not None
        numbers = [read_stamp(next(source).image) for _ in range(30)]
        assert any(number % 10 for number in numbers)
        source.thinner.spacing = Spacing(enough=0.4)
        while not source.thinner.keys_only:
            read_stamp(next(source).image)
        received = source.received
        frames = [next(source) for _ in range(4)]
        assert all(read_stamp(frame.image) % 10 == 0 for frame in frames)
        assert source.received - received > 10
        assert np.diff([frame.time for frame in frames]).min() > 0.1
        source.thinner.spacing = Spacing()
        numbers = [read_stamp(next(source).image) for _ in range(30)]
        assert any(number % 10 for number in numbers)
