"""Clips of videos of many kinds: each is played to its end, and the picture of the event is in it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from perception.footage.store import FootageStore
from perception.sources import open_source
from perception.sources.packets import PacketRing
from tests.footage.clips import record, shown
from tests.media import make_video, read_stamp

H264 = {"preset": "ultrafast", "bf": "3", "b-pyramid": "normal"}
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "B-frames": ("v.mp4", {"options": {**H264, "x264-params": "scenecut=0"}, "keyint": 30}, ".mp4"),
    "in MPEG-TS": ("v.ts", {"options": {**H264, "x264-params": "scenecut=0"}, "keyint": 30}, ".mp4"),
    "in Matroska": ("v.mkv", {"options": {**H264, "x264-params": "scenecut=0"}, "keyint": 30}, ".mp4"),
    "open groups": ("v.mp4", {"codec": "libx265", "options": {"preset": "ultrafast",
                     "x265-params": "log-level=none:open-gop=1:keyint=30:min-keyint=30:bframes=3:scenecut=0"}}, ".mp4"),
    "VP9": ("v.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}, "keyint": 30},
            ".mkv"),
    "MPEG-2": ("v.ts", {"codec": "mpeg2video", "options": {"bf": "2"}, "keyint": 15}, ".mkv"),
    "Motion JPEG": ("v.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, ".mkv"),
    "raw": ("v.h264", {"options": {"bf": "0", "preset": "ultrafast", "x264-params": "scenecut=0"}, "keyint": 30},
            ".mp4"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_of_each_kind_shows_what_was_around_the_event(tmp_path: Path, kind: str) -> None:
    name, options, suffix = KINDS[kind]
    video = make_video(tmp_path / name, frames=200, **options)
    folder = tmp_path / "clips"
    found = record(video, folder, [120], before_s=1, after_s=1)
    clip = found[120].clip
    assert clip is not None and clip.endswith(suffix)
    numbers = shown(clip)
    assert numbers == [*range(numbers[0], numbers[-1] + 1)]
    assert 120 - 25 - 30 <= numbers[0] <= 120 - 25  # a key frame, at least a second before
    # what is shown last is a second after, or some frames less where later ones would be needed for it
    assert 120 + 25 - 4 <= numbers[-1] <= 120 + 25


def test_key_frames_ten_seconds_apart(tmp_path: Path) -> None:
    video = make_video(
        tmp_path / "v.mp4", frames=650, keyint=250, options={"preset": "ultrafast", "x264-params": "scenecut=0"}
    )
    found = record(video, tmp_path / "clips", [100, 520, 640], before_s=2, after_s=1)
    begins = {number: shown(found[number].clip)[0] for number in found}  # type: ignore[arg-type]
    assert begins == {100: 0, 520: 250, 640: 500}
    assert shown(found[640].clip)[-1] == 649  # type: ignore[arg-type]  # the video is over then


def test_events_during_a_clip_prolong_it_and_later_ones_have_their_own(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=400, keyint=25, options={"preset": "ultrafast"})
    found = record(video, tmp_path / "clips", [50, 60, 84, 250], before_s=1, after_s=1)
    assert len({found[n].clip for n in (50, 60, 84)}) == 1 and found[250].clip != found[50].clip
    assert len({event.snapshot for event in found.values()}) == 4
    assert {50, 60, 84, 105} <= {*shown(found[50].clip)} and shown(found[50].clip)[-1] <= 109  # type: ignore[arg-type]
    assert 250 in shown(found[250].clip)  # type: ignore[arg-type]


def test_a_clip_is_not_prolonged_for_ever(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=500, keyint=25, options={"preset": "ultrafast"})
    numbers = [*range(40, 500, 10)]
    found = record(video, tmp_path / "clips", numbers, before_s=1, after_s=1, longest_s=5, snapshots=False)
    clips = {event.clip for event in found.values()}
    assert 4 <= len(clips) <= 8
    seen = {clip: shown(str(clip)) for clip in clips}
    for number in numbers:
        pictures = seen[found[number].clip]
        assert number in pictures and len(pictures) <= 6 * 25 + 10


@pytest.mark.parametrize(
    ("name", "audio", "suffix"),
    [("v.mp4", "aac", ".mp4"), ("v.mkv", "libopus", ".mp4"), ("v.mkv", "pcm_s16le", ".mkv")],
)
def test_sound_is_kept_where_it_is_asked_for(tmp_path: Path, name: str, audio: str, suffix: str) -> None:
    made = {"options": {"preset": "ultrafast"}, "keyint": 25}
    video = tmp_path / name
    if audio == "aac":
        make_video(video, frames=200, audio="aac", **made)
    else:  # what the helper for sound does not encode is put beside the pictures from another file
        make_video(tmp_path / "pictures.mp4", frames=200, **made)
        with_sound(tmp_path / "pictures.mp4", video, audio)
    silent = record(video, tmp_path / "silent", [120], before_s=1, after_s=2)[120].clip
    loud = record(video, tmp_path / "loud", [120], before_s=1, after_s=2, sound=True)[120].clip
    assert silent is not None and loud is not None
    with av.open(silent) as container:
        assert not container.streams.audio
    assert silent.endswith(".mp4") and loud.endswith(suffix)
    assert shown(loud) == shown(silent)
    with av.open(loud) as container:
        sounds = list(container.decode(audio=0))
    assert sounds[0].time == pytest.approx(0, abs=0.1)
    length = sounds[-1].time + sounds[-1].samples / sounds[-1].rate
    assert length == pytest.approx(len(shown(loud)) / 25, abs=0.4)


def with_sound(pictures: Path, path: Path, codec: str) -> None:
    with av.open(str(pictures)) as container, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(container.streams.video[0], opaque=True)
        sound = out.add_stream(codec, rate=48_000, layout="mono")
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for i in range(0, 8 * 48_000, 960):
            while packets and packets[0].dts * packets[0].time_base <= i / 48_000:
                packets[0].stream = video
                out.mux(packets.pop(0))
            wave = 0.3 * np.sin(2 * np.pi * 440 / 48_000 * np.arange(i, i + 960))
            flat = (wave * 32767).astype(np.int16)[None] if codec.startswith("pcm") else wave.astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(flat, format="s16" if codec.startswith("pcm") else "flt", layout="mono")
            frame.sample_rate, frame.pts = 48_000, i
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def test_a_video_whose_first_key_frame_is_missing(tmp_path: Path) -> None:
    whole = make_video(
        tmp_path / "whole.ts",
        frames=200,
        keyint=50,
        options={"preset": "ultrafast", "bf": "0", "x264-params": "scenecut=0"},
    )
    data = whole.read_bytes()
    cut = tmp_path / "cut.ts"
    with av.open(str(whole)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][10]
    cut.write_bytes(data[: 3 * 188] + data[place:])  # tables, then the middle of the first group
    found = record(cut, tmp_path / "clips", [60, 150], before_s=3, after_s=1)
    assert shown(found[60].clip)[0] == 50  # type: ignore[arg-type]
    assert shown(found[150].clip)[0] == 50  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "codec"), [("v.avi", "mpeg4"), ("v.mpg", "mpeg2video")])
def test_there_is_no_clip_where_a_file_could_not_be_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str
) -> None:
    """These do not say when pictures that are stored out of order are shown."""
    video = make_video(tmp_path / name, frames=60, codec=codec, options={"bf": "2"}, keyint=10)
    with caplog.at_level(logging.WARNING):
        found = record(video, tmp_path / "clips", [20, 40])
    assert [event.clip for event in found.values()] == [None, None]
    assert all(Path(str(event.snapshot)).is_file() for event in found.values())
    assert sum("no clip of an event" in line for line in caplog.messages) == 1


def test_pictures_and_drawn_streets_have_snapshots_only(tmp_path: Path) -> None:
    found = record("synthetic:?size=64x48&frames=3", tmp_path, [0, 2], numbered=False)
    for event in found.values():
        assert event.clip is None and Path(str(event.snapshot)).is_file()


def test_a_snapshot_is_the_picture_that_was_drawn(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=60, size_wh=(160, 96))
    event = record(video, tmp_path / "clips", [33])[33]
    image = cv2.imread(str(event.snapshot))
    assert read_stamp(image[48:]) == 33
    assert image[4:12, 4:12].mean(axis=(0, 1)) == pytest.approx((0, 0, 255), abs=40)


def test_a_telephone_held_upright(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=60, rotation=90, size_wh=(160, 96))
    clip = record(video, tmp_path / "clips", [30], numbered=False)[30].clip
    for path in (str(video), str(clip)):
        with open_source(path) as source:
            assert {frame.image.shape for frame in source} == {(160, 96, 3)}


def test_packets_are_bounded_in_bytes(tmp_path: Path) -> None:
    """However far key frames are apart: where there is too much between them, all is forgotten until the next one."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(300)]
    video = make_video(
        tmp_path / "v.mp4", images=noise, size_wh=(160, 96), keyint=150,
        options={"preset": "ultrafast", "crf": "10", "x264-params": "scenecut=0"},
    )  # fmt: skip
    assert video.stat().st_size > 3 << 20
    ring = PacketRing(60, 1 << 20)
    most = 0
    with open_source(video, packets=ring) as source:
        for frame in source:
            moment = ring.reach(frame.arrived)
            assert moment is not None
            held = sum(len(packet.data) for packet in moment.stretch.packets)
            assert held == moment.stretch.bytes
            most = max(most, held)
    assert 1 << 18 < most <= 1 << 20


KILLED = """
import os, signal, sys
from pathlib import Path
from perception.footage.recorder import FootageRecorder
from perception.footage.settings import ClipSettings
from perception.footage.store import FootageStore
from perception.sources import open_source
from perception.types import Prediction
from tests.footage.clips import draw, event_at
recorder = FootageRecorder(FootageStore(Path(sys.argv[2])), ClipSettings(before_s=1, after_s=60), draw)
with open_source(sys.argv[1], packets=recorder.packets) as source:
    for frame in source:
        prediction = Prediction(frame, events=(event_at(Prediction(frame)),) if frame.index in (20, 40) else ())
        recorder(prediction)
        if frame.index == 150:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=200, keyint=25)
    folder = tmp_path / "clips"
    command = [sys.executable, "-c", KILLED, str(video), str(folder)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert ended.returncode == -signal.SIGKILL
    names = sorted(path.name for path in folder.iterdir())
    assert sum(name.endswith(".mp4.part") for name in names) == 1
    assert sum(name.endswith(".jpg") for name in names) == 2 and len(names) == 3
    for name in names:
        if name.endswith(".jpg"):
            assert cv2.imread(str(folder / name)) is not None
    part = next(name for name in names if name.endswith(".part"))
    store = FootageStore(folder)
    assert store.find(part) is None and store.find(part.removesuffix(".part")) is None
    assert (folder / part).exists()  # it might be another process's
    later = FootageStore(folder, now=lambda: (folder / names[0]).stat().st_mtime + 3700)
    assert not (folder / part).exists() and later.find(names[0] if names[0].endswith("jpg") else names[1]) is not None


def test_a_disk_that_takes_nothing_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A clip whose folder goes away while it is written: a line, no file, and the source is read to its end."""
    folder = tmp_path / "clips"
    store = FootageStore(folder, private=False)
    video = make_video(tmp_path / "v.mp4", frames=120, keyint=25)

    class Gone(FootageStore):
        def part(self, name: str) -> Path:
            return tmp_path / "nowhere" / f"{name}.part"

    with caplog.at_level(logging.WARNING):
        found = record(video, folder, [30], store=Gone(folder, private=False), before_s=1, after_s=1)
    assert sum("a clip cannot be kept" in line for line in caplog.messages) == 1
    assert found[30].clip is not None and not Path(found[30].clip).exists()
    assert store.find(Path(found[30].clip).name) is None
