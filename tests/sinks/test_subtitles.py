"""Boxes as subtitles: the video is the same to the last bit, and what is drawn over it is what the model said."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from perception.commands.main import app
from perception.errors import UsageError
from perception.sinks import open_sink
from perception.sources import open_source
from perception.types import Detections, Prediction
from tests.media import make_video
from tests.models import write_model
from tests.server.rtsp_process import PYTHON
from tests.sinks.samples import card, detections, info


def packets(path: Path, kind: str) -> list[tuple[int, bytes]]:
    """Time in milliseconds, and the bytes, of the packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (round((p.dts if p.pts is None else p.pts) * p.time_base * 1000), bytes(p))
            for p in container.demux(stream)
            if p.size
        ]


def script(path: Path) -> tuple[str, list[tuple[float, float, str]]]:
    """The header of the subtitles, and their lines: begin and end in seconds, and what stands in them."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        head = stream.codec_context.extradata.decode()
        lines = []
        for packet in container.demux(stream):
            if packet.size:
                begin = float(packet.pts * packet.time_base)
                lines.append((begin, begin + float(packet.duration * packet.time_base), bytes(packet).decode()))
    return head, lines


def boxes_in(text: str) -> list[list[int]]:
    """Outer rectangles of a drawing: what goes around clockwise."""
    found = []
    for loop in text.split("m ")[1:]:
        x = [int(number) for number in re.findall(r"-?\d+", loop)]
        points = [*zip(x[::2], x[1::2], strict=True)]
        area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:] + points[:1], strict=True))
        if area > 0:  # y goes down
            found.append([min(x[::2]), min(x[1::2]), max(x[::2]), max(x[1::2])])
    return found


def written(source: Path, target: Path, found: dict[int, Detections], **options: Any) -> Path:
    """What the sink makes of a file; ``found`` has the boxes by the number of the frame."""
    with open_source(str(source), **options) as frames, open_sink(target, kind="subtitles") as sink:
        sink.open(frames.info, card())
        for frame in frames:
            sink.write(Prediction(frame, detections=found.get(frame.index)))
    return target


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [
        ("b-frames.mp4", {"codec": "libx264", "options": {"bf": "3", "x264-params": "b-adapt=0"}}, "aac"),
        ("hevc.mp4", {"codec": "libx265"}, None),
        ("vp9.webm", {"codec": "libvpx-vp9"}, "libopus"),
        ("old.avi", {"codec": "mpeg4"}, "mp3"),
        ("other.mkv", {"codec": "libx264"}, "flac"),
    ],
)
def test_packets_are_the_same_to_the_last_bit(tmp_path: Path, name: str, video: Any, audio: str | None) -> None:
    source = make_video(tmp_path / name, frames=60, keyint=20, audio=audio, size_wh=(160, 96), **video)
    target = written(source, tmp_path / "out.mkv", {i: detections(2, seed=i) for i in range(60)})
    for kind in ("video", *(["audio"] if audio else [])):
        before, after = packets(source, kind), packets(target, kind)
        assert [data for _, data in after] == [data for _, data in before]
        first = before[0][0] - after[0][0]
        assert [pts - first for pts, _ in before] == pytest.approx([pts for pts, _ in after], abs=1)
    with av.open(str(source)) as one, av.open(str(target)) as other:
        pairs = zip(one.decode(video=0), other.decode(video=0), strict=True)
        assert all(np.array_equal(a.to_ndarray(), b.to_ndarray()) for a, b in pairs)


def test_h264_of_a_broadcast_keeps_its_units(tmp_path: Path) -> None:
    """MPEG-TS separates the units of H.264 by start codes, Matroska by lengths; the units are the same."""
    source = make_video(tmp_path / "a.ts", frames=30, audio="aac", size_wh=(160, 96))
    target = written(source, tmp_path / "out.mkv", {0: detections(1)})

    def units(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream) if path.suffix == ".mkv" else None
            found = [p for p in container.demux(stream) if p.size]
            data = [bytes(q) for p in found for q in ([p] if annexb is None else annexb.filter(p))]
        parts = [part.rstrip(b"\0") for one in data for part in one.split(b"\0\0\1")]
        return [part for part in parts if part and part[0] & 31 in (1, 5)]  # pictures

    assert units(target) == units(source)
    with av.open(str(source)) as one, av.open(str(target)) as other:
        assert sum(1 for _ in one.decode(audio=0)) == sum(1 for _ in other.decode(audio=0))


def test_drawings_are_the_boxes_with_their_times_classes_and_tracks(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", frames=10, fps=10, size_wh=(200, 120))
    boxes = np.array([[10.4, 20.2, 60.6, 70.1], [100, 30, 180.2, 110]], np.float32)
    two = Detections(boxes, np.array([0.91, 0.5], np.float32), np.array([0, 1], np.int32), np.array([7, -1]))
    moved = Detections(boxes + 5, two.scores, two.class_ids, two.track_ids)
    target = written(source, tmp_path / "out.mkv", {2: two, 3: two, 4: moved})
    head, lines = script(target)
    assert "PlayResX: 200" in head
    assert "PlayResY: 120" in head
    drawn = [line for line in lines if "\\p1" in line[2]]
    assert [(begin, end, boxes_in(text)) for begin, end, text in drawn] == [
        (pytest.approx(0.2), pytest.approx(0.4), [[10, 20, 61, 70]]),
        (pytest.approx(0.2), pytest.approx(0.4), [[100, 30, 180, 110]]),
        (pytest.approx(0.4), pytest.approx(0.5), [[15, 25, 66, 75]]),
        (pytest.approx(0.4), pytest.approx(0.5), [[105, 35, 185, 115]]),
    ]
    assert "\\1c&H0000FF&" in drawn[0][2]  # red, as ASS writes it
    assert "\\1c&H00FF00&" in drawn[1][2]
    words = [re.sub(r"\{.*?\}", "", text).split(",")[-1] for _, _, text in lines if "\\p1" not in text]
    assert words == ["#7 car 91%", "person 50%"] * 2
    numbers = [int(text.split(",")[0]) for _, _, text in lines]
    assert numbers == [*range(len(lines))]


def test_lines_that_stay_are_one_and_repeated_for_who_jumps_in(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", frames=130, fps=10)
    still = detections(1)
    _, lines = script(written(source, tmp_path / "out.mkv", dict.fromkeys(range(130), still)))
    drawn = [(begin, end) for begin, end, text in lines if "\\p1" in text]
    assert drawn == [(0.0, pytest.approx(5.0)), (5.0, pytest.approx(10.0)), (10.0, pytest.approx(13.0))]


def test_frames_that_are_skipped_are_copied(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", frames=20, fps=10)
    target = written(source, tmp_path / "out.mkv", {i: detections(1, seed=i) for i in range(20)}, every=5)
    assert [data for _, data in packets(target, "video")] == [data for _, data in packets(source, "video")]
    drawn = [(begin, end) for begin, end, text in script(target)[1] if "\\p1" in text]
    assert drawn == [(pytest.approx(t / 2), pytest.approx(t / 2 + 0.5)) for t in range(4)]


def test_a_turned_video_stays_turned(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", frames=5, size_wh=(80, 48), rotation=90)
    target = written(source, tmp_path / "out.mkv", {0: detections(1)})
    assert "PlayResX: 48" in script(target)[0]  # of the picture as it is shown
    with open_source(str(source)) as one, open_source(str(target)) as other:
        for before, after in zip(one, other, strict=True):
            assert np.array_equal(before.image, after.image)


def test_words_are_no_commands(tmp_path: Path) -> None:
    from perception.sinks.ass import AssDrawing

    task = card().detection
    assert task is not None
    named = task.model_copy(update={"classes": (task.classes[0].model_copy(update={"name": r"a{\b1}\Nb"}),)})
    one = Detections(np.array([[5, 5, 20, 20]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    label = AssDrawing(named, 100, 100).lines(one)[-1]
    assert re.sub(r"^[^}]*\}", "", label) == "a(/b1)/Nb 100%"


def test_what_cannot_be_copied(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.mkv"):
        open_sink(tmp_path / "a.mp4", kind="subtitles")
    sink = open_sink(tmp_path / "a.mkv", kind="subtitles")
    with pytest.raises(UsageError, match="video files only"):
        sink.open(info(), card())
    with pytest.raises(UsageError, match="makes none"):
        sink.open(info(), card(detection=False))
    source = make_video(tmp_path / "b.mp4", frames=5)
    with pytest.raises(UsageError, match="the whole video is copied"):
        written(source, tmp_path / "c.mkv", {}, start=0.1)
    assert not [*tmp_path.glob("*.mkv*")]


def test_what_is_interrupted_is_left_beside_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_video(tmp_path / "a.mp4", frames=50)
    with open_source(str(source)) as frames:
        sink = open_sink(tmp_path / "out.mkv", kind="subtitles")
        sink.open(frames.info, card())
        for frame, _ in zip(frames, range(20), strict=False):
            sink.write(Prediction(frame, detections=detections(1)))
        sink.abort()
    assert not (tmp_path / "out.mkv").exists()
    with av.open(str(tmp_path / "out.mkv.part")) as container:
        assert 10 <= sum(1 for _ in container.decode(video=0)) <= 30
    assert "incomplete" in caplog.text


def test_the_command(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "m.onnx", detection=True))
    images = [np.full((48, 64, 3), 128, np.uint8) for _ in range(12)]
    for i, image in enumerate(images):
        image[16:32, 16 * (i // 4) : 16 * (i // 4) + 16] = (0, 0, 255)
    source = make_video(tmp_path / "a.mp4", images=images, size_wh=(64, 48), options={"crf": "1"})
    out, data = tmp_path / "out.mkv", tmp_path / "a.jsonl"
    arguments = ["annotate", str(source), "-m", model, "-o", str(out), "--overlay", "subtitles", "--jsonl", str(data)]
    result = CliRunner().invoke(app, [*arguments, "--track"])
    assert result.exit_code == 0, result.output
    assert [data for _, data in packets(out, "video")] == [data for _, data in packets(source, "video")]
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    lines = script(out)[1]
    assert any(row["detections"] for row in rows)
    for row in rows:
        shown = [text for begin, end, text in lines if begin - 1e-6 <= row["time"] + 0.001 < end]
        expected = sorted([round(x) for x in found["box"]] for found in row["detections"])
        assert sorted(box for text in shown for box in boxes_in(text)) == expected
        ids = {int(n) for text in shown for n in re.findall(r"#(\d+) ", text)}
        assert ids == {found["track_id"] for found in row["detections"]}
    refused = CliRunner().invoke(app, [*arguments, "--overwrite", "--crf", "20"])
    assert "leave out what draws or encodes" in str(refused.exception)


def test_a_folder_of_videos(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "m.onnx", detection=True))
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_video(tmp_path / "in" / name, frames=3)
    arguments = ["annotate", str(tmp_path / "in"), "-m", model, "-o", f"{tmp_path}/out/", "--overlay", "subtitles"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mkv", "b.mkv"]


def test_libass_draws_the_boxes_where_they_are(tmp_path: Path) -> None:
    """Rendered as a player does: the pixels of each class's colour span its box."""
    black = [np.zeros((240, 320, 3), np.uint8)] * 10
    source = make_video(tmp_path / "a.mkv", images=black, fps=10, size_wh=(320, 240), codec="mjpeg", pix_fmt="yuvj420p")
    boxes = np.array([[40, 60, 140, 160], [200, 100, 300, 220]], np.float32)
    found = {i: Detections(boxes + i, np.array([0.9, 0.8], np.float32), np.array([0, 1], np.int32)) for i in (3, 4)}
    target = written(source, tmp_path / "out.mkv", found)
    script = str(Path(__file__).with_name("ass_render.py"))
    raw = tmp_path / "out.bgr"
    try:
        run = subprocess.run([PYTHON, script, str(target), str(raw)], capture_output=True, text=True, timeout=120)
    except OSError as error:
        pytest.skip(f"no GStreamer here: {error}")
    if "no assrender" in run.stderr or "No module named" in run.stderr or "not available" in run.stderr:
        pytest.skip(f"no libass here: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
    pictures = np.fromfile(raw, np.uint8).reshape(-1, 240, 320, 3).astype(int)
    assert len(pictures) == 10
    for i, picture in enumerate(pictures):
        for channel, box in ((2, boxes[0]), (1, boxes[1])):
            others = [c for c in range(3) if c != channel]
            shown = (picture[..., channel] > 180) & (picture[..., others].max(axis=-1) < 100)
            if i not in found:
                assert not shown.any()
                continue
            x0, y0, x1, y1 = (box + i).astype(int)
            left, right = np.flatnonzero(shown[y0 + 5 : y1 - 5].sum(axis=0) > 0.9 * (y1 - y0 - 10))[[0, -1]]
            top, bottom = np.flatnonzero(shown[:, x0 + 5 : x1 - 5].sum(axis=1) > 0.9 * (x1 - x0 - 10))[[0, -1]]
            assert [left, right + 1] == pytest.approx([x0, x1], abs=1)
            assert bottom + 1 == pytest.approx(y1, abs=1)
            assert top <= y0 + 1  # the label lies on the upper edge, in the same colour
            assert not shown[y0 + 30 : y1 - 30, x0 + 30 : x1 - 30].any()  # hollow


def test_a_batch_of_videos(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "m.onnx", detection=True))
    (tmp_path / "in").mkdir()
    sources = [make_video(tmp_path / "in" / name, frames=3) for name in ("a.mp4", "b.mp4")]
    arguments = ["annotate", str(tmp_path / "in"), "-m", model, "-o", f"{tmp_path}/out/", "--overlay", "subtitles"]
    result = CliRunner().invoke(app, [*arguments, "--resume"])
    assert result.exit_code == 0, result.output
    for source in sources:
        target = tmp_path / "out" / f"{source.stem}.mkv"
        assert [data for _, data in packets(target, "video")] == [data for _, data in packets(source, "video")]
    assert not [*tmp_path.rglob("*.part")]
