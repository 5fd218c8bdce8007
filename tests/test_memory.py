"""Resident memory stays flat however long a run is."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from perception.drawing.annotator import Annotator
from perception.model import load_model
from perception.pipeline import run
from perception.sinks import open_sink
from perception.sources import open_source
from tests.models import write_model

FRAMES = 20_000
WARM = 2_000
MAX_GROWTH_MB = 20


@pytest.mark.slow
def test_20_000_frames_grow_by_less_than_20_mb(tmp_path: Path) -> None:
    model_path = write_model(tmp_path / "colors.onnx", width=160, height=120, stride=4)
    process = psutil.Process()
    resident: dict[int, int] = {}

    def sample(frames: int, dropped: int) -> None:
        resident[frames] = process.memory_info().rss

    sinks = [open_sink(tmp_path / name) for name in ("o.mp4", "o.jsonl")]
    with (
        open_source(f"synthetic:?size=320x240&frames={FRAMES}") as source,
        load_model(model_path, mode="throughput") as model,
    ):
        report = run(source, model, annotator=Annotator(model.card), sinks=sinks, progress=sample)
    assert report.frames == FRAMES
    warm = next(rss for frames, rss in sorted(resident.items()) if frames >= WARM)
    growth_mb = (max(resident.values()) - warm) / 1e6
    assert growth_mb < MAX_GROWTH_MB, {frames: rss // 1_000_000 for frames, rss in resident.items()}
