"""`perception bench encoders`: quality against an oracle of its own; no figure of speed is asserted."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from perception.bench import encoders
from perception.model import load_model
from perception.sinks.codecs import choose_encoder
from tests.media import make_video
from tests.models import write_model

pytestmark = pytest.mark.usefixtures("own_cache_home")


def test_a_row_for_each_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "clip.mp4"
    make_video(clip, frames=12)
    monkeypatch.setattr(encoders, "SETTINGS", (("h264", None), ("h264", "ultrafast")))
    with load_model(write_model(tmp_path / "colors.onnx"), precision="fp32") as model:
        usual, fastest = encoders.encoder_rows(model, clip, tmp_path)
    assert (usual["encoder"], fastest["encoder"]) == ("h264, as by default", "h264, ultrafast")
    assert usual["default_times_faster"] == 1 and fastest["core_ms"] > 0
    for row, name in ((usual, "h264-None.mkv"), (fastest, "h264-ultrafast.mkv")):
        with av.open(str(tmp_path / name)) as lossy, av.open(str(tmp_path / "annotated.mkv")) as whole:
            pairs = list(zip(lossy.decode(video=0), whole.decode(video=0), strict=True))
        assert len(pairs) == 12
        errors = [
            (int(np.frombuffer(a.planes[0], np.uint8)[at]) - int(np.frombuffer(b.planes[0], np.uint8)[at])) ** 2
            for a, b in pairs
            for row_start in range(0, a.height * a.planes[0].line_size, a.planes[0].line_size)
            for at in range(row_start, row_start + a.width, 7)
        ]
        assert row["psnr_db"] == pytest.approx(10 * np.log10(255**2 / np.mean(errors)), abs=0.3)  # every seventh pixel
        assert 0.8 < row["ssim"] <= 1
        assert row["kbit_s"] == round((tmp_path / name).stat().st_size * 8e-3 / (12 / encoders.FPS))


def test_structural_similarity_of_known_pictures() -> None:
    rng = np.random.default_rng(4)
    flat = np.full((64, 64), 100, np.float32)
    assert encoders._ssim(flat, flat) == 1
    # Without any structure only the means count: (2ab + c1) / (a² + b² + c1).
    assert encoders._ssim(flat, flat + 50) == pytest.approx(
        (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025), rel=1e-4
    )
    noise = rng.normal(128, 30, (256, 256)).astype(np.float32)
    assert abs(encoders._ssim(noise, rng.normal(128, 30, (256, 256)).astype(np.float32))) < 0.1
    assert 0.5 < encoders._ssim(noise, noise + rng.normal(0, 10, noise.shape).astype(np.float32)) < 0.99


@pytest.mark.parametrize(("preset", "looks_ahead"), [(None, True), ("superfast", True), ("slow", False)])
def test_the_usual_preset_alone_has_another_lookahead(preset: str | None, looks_ahead: bool) -> None:
    encoder = choose_encoder("mp4", None, None, preset, None, "out.mp4")
    assert encoder.options["preset"] == (preset or "superfast")
    assert ("rc-lookahead=10" in encoder.options["x264-params"]) is looks_ahead


def test_the_usual_settings_keep_quality_and_size_of_veryfast(tmp_path: Path) -> None:
    """A moving picture with texture: within 0.5 dB, and at most a fifth larger; superfast alone is twice as large."""
    rng = np.random.default_rng(7)
    large = rng.integers(0, 255, (30, 40, 3)).astype(np.uint8).repeat(12, 0).repeat(12, 1)
    noise = rng.normal(0, 4, large.shape)
    still = np.clip(large + noise, 0, 255).astype(np.uint8)
    frames = []
    for k in range(50):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(still[k : k + 240, 2 * k : 2 * k + 320]), "bgr24")
        frames.append(frame.reformat(format="yuv420p"))
        frames[-1].pts, frames[-1].time_base = k, Fraction(1, encoders.FPS)
    found = {}
    for preset in (None, "veryfast"):
        path = tmp_path / f"{preset}.mkv"
        encoders._encode(frames, "h264", preset, path)
        found[preset] = (encoders._quality(frames, path)[0], path.stat().st_size)
    assert found[None][0] > found["veryfast"][0] - 0.5
    assert found[None][1] < 1.2 * found["veryfast"][1]
