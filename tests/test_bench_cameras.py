"""`perception bench cameras`: a row for one camera and one for many; no figure is asserted."""

import json
import signal

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from perception import open_source
from perception.bench import cameras, endurance, rtsp_camera
from perception.commands.main import app
from tests.media import make_video, read_stamp, stamp
from tests.models import write_model

pytest.importorskip("psutil")


def test_a_clip_is_played_at_another_rate(tmp_path):
    clip = make_video(tmp_path / "a.mp4", frames=30, fps=25)
    cameras._play_at(160, clip, tmp_path / "b.mp4")
    with av.open(str(clip)) as one, av.open(str(tmp_path / "b.mp4")) as other:
        expected = [frame.to_ndarray(format="bgr24").tolist() for frame in one.decode(video=0)]
        frames = list(other.decode(video=0))
    assert [frame.to_ndarray(format="bgr24").tolist() for frame in frames] == expected
    times = [frame.time - frames[0].time for frame in frames]
    assert times == pytest.approx([i / 160 for i in range(30)], abs=1e-4)


def test_a_clip_is_encoded_as_cameras_do(tmp_path):
    clip = make_video(tmp_path / "a.mp4", frames=40, fps=25, size_wh=(160, 96))
    units = rtsp_camera.encoded(clip, 25, 0.4, 30)
    assert len(units) == 30
    (tmp_path / "sent.h264").write_bytes(b"".join(b"\0\0\1" + unit for frame in units for unit in frame))
    with av.open(str(tmp_path / "sent.h264")) as container:
        frames = list(container.decode(video=0))
    assert [read_stamp(frame.to_ndarray(format="bgr24")) for frame in frames] == list(range(30))
    assert [number for number, frame in enumerate(frames) if frame.key_frame] == [0, 10, 20]
    assert not any(frame.pict_type == av.video.frame.PictureType.B for frame in frames)


def test_cameras_by_rtsp_show_what_the_clip_does(tmp_path):
    """Large key frames go in several packets; each connection begins with the first frame."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (25, 96, 160, 3)).astype(np.uint8)
    images = np.concatenate([np.stack([stamp(i, (160, 96)) for i in range(25)])[:, :48], noise[:, 48:]], axis=1)
    clip = make_video(tmp_path / "a.mp4", images=images, size_wh=(160, 96), options={"crf": "10"})
    units = rtsp_camera.encoded(clip, 25, 1.0, 25)
    assert max(len(unit) for frame in units for unit in frame) > 2 * 1200
    with rtsp_camera.served(rtsp_camera.rtsp_camera(units, fps=100)) as address:
        for _ in range(2):
            with open_source(address, timeout=20) as source:
                numbers = [read_stamp(next(source).image[:48]) for _ in range(5)]
            assert numbers == sorted(numbers) and set(numbers) <= set(range(25))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_rows_of_cameras_by_rtsp(tmp_path, monkeypatch):
    monkeypatch.setattr(cameras, "SETTLE_S", 1.0)
    monkeypatch.setattr(cameras, "RTSP_SETTLE_S", 3.0)
    model = str(write_model(tmp_path / "m.onnx", classes=["white", "black"], detection=True))
    clip = str(make_video(tmp_path / "a.mp4", frames=50))
    arguments = ["bench", "rtsp", "-m", model, "--clip", clip, "--cameras", "3", "--seconds", "2", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    one, whole, needed = json.loads(result.stdout)
    assert [row["decode"] for row in (one, whole, needed)] == ["needed", "all", "needed"]
    assert [row["cameras"] for row in (one, whole, needed)] == [1, 3, 3]
    assert whole["decoded"] == 1 and 0 < needed["decoded"] <= 1
    assert needed["of_one_camera"] > 0 and needed["fastest_to_slowest"] >= 1 and needed["latency_ms"] > 0
    assert "cameras by RTSP on one engine" in one["table"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_rows_of_cameras_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(endurance, "SETTLE_S", 1.0)
    monkeypatch.setattr(endurance, "RTSP_SETTLE_S", 3.0)
    monkeypatch.setattr(endurance, "PARTS", 3)
    model = str(write_model(tmp_path / "m.onnx", classes=["white", "black"], detection=True))
    clip = str(make_video(tmp_path / "a.mp4", frames=50))
    arguments = ["bench", "endurance", "-m", model, "--clip", clip, "--cameras", "3", "--seconds", "6", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    one, *parts, whole = json.loads(result.stdout)
    assert [row["cameras"] for row in (one, *parts, whole)] == [1, 3, 3, 3, 3]
    minutes = [float(row["minutes"]) for row in parts]
    assert minutes == sorted(minutes) and minutes[-1] >= 0.1 and whole["minutes"] == "all"
    assert all(row["threads"] > 0 and row["descriptors"] > 0 and row["memory_mb"] > 0 for row in parts)
    assert all(row["fastest_to_slowest"] >= 1 for row in (*parts, whole)) and whole["of_one_camera"] > 0
    assert whole["threads_added"] == parts[-1]["threads"] - parts[0]["threads"] and whole["reconnects"] == 0
    slowest, fastest = (pick(row["results_fps"] for row in parts) for pick in (min, max))
    assert slowest - 0.1 <= whole["results_fps"] <= fastest + 0.1  # it is their mean


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(cameras, "SETTLE_S", 1.0)
    model = str(write_model(tmp_path / "m.onnx", classes=["white", "black"], detection=True))
    clip = str(make_video(tmp_path / "a.mp4", frames=50))
    arguments = ["bench", "cameras", "-m", model, "--clip", clip, "--cameras", "3", "--seconds", "2", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    one, many = json.loads(result.stdout)
    assert (one["cameras"], many["cameras"]) == (1, 3)
    assert many["slowest_fps"] <= many["fastest_fps"] <= many["results_fps"]
    assert many["of_one_camera"] > 0 and many["fastest_to_slowest"] >= 1
    assert "cameras on one engine" in one["table"]
