"""`perception bench cameras`: a row for one camera and one for many; no figure is asserted."""

import json
import signal

import av
import pytest
from typer.testing import CliRunner

from perception.bench import cameras
from perception.commands.main import app
from tests.media import make_video
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
