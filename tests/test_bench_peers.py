"""`perception bench peers`: the same clip with other libraries, a process each; no figure of speed is asserted."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from perception.bench import peers
from perception.bench.peer_loops import FULL, LOOPS, OURS
from perception.errors import PerceptionError
from tests.media import make_video
from tests.models import write_model

pytestmark = pytest.mark.usefixtures("own_cache_home")


def test_a_row_for_each_and_why_one_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = write_model(tmp_path / "colors.onnx", detection=True), tmp_path / "clip.mp4"
    make_video(clip, frames=peers.WARM + 5)
    known = {name: LOOPS[name] for name in (OURS, "supervision, OpenVINO")}
    monkeypatch.setattr(peers, "LOOPS", {**known, "a library that nobody has": LOOPS[OURS]})
    ours, theirs, missing = peers.peer_rows(str(model), clip, "fp32", rounds=1)
    for row in (ours, theirs):
        assert row["fps"] > 0 and row["core_ms"] > 0 and row["first_frame_s"] > 0
        assert row["peak_mib"] > 50 and row["imported_mib"] > 50
        assert row["ours_times_faster"] == pytest.approx(ours["fps"] / row["fps"], abs=0.051)
    assert (ours["run"], theirs["run"]) == (OURS, "supervision, OpenVINO")
    assert missing == {"run": "a library that nobody has", "skipped": missing["skipped"]}
    assert "invalid choice" in missing["skipped"]


def test_a_clip_too_short_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = write_model(tmp_path / "colors.onnx"), tmp_path / "clip.mp4"
    make_video(clip, frames=5)
    monkeypatch.setattr(peers, "LOOPS", {OURS: LOOPS[OURS]})
    with pytest.raises(PerceptionError, match=f"only 5 frames; more than {peers.WARM} are needed"):
        peers.peer_rows(str(model), clip, "fp32", rounds=1)


@pytest.mark.parametrize("name", [OURS, FULL, "OpenCV and torch", "supervision, OpenVINO"])
def test_each_loop_annotates_every_frame(name: str, tmp_path: Path) -> None:
    model, clip, output = write_model(tmp_path / "m.onnx", detection=True), tmp_path / "clip.mp4", tmp_path / "out.mp4"
    make_video(clip, frames=7)
    done = []
    LOOPS[name](str(model), model, clip, output, 6, lambda: done.append(1))
    assert len(done) == 6
    with av.open(str(output)) as written:
        assert len(list(written.decode(video=0))) == 6
