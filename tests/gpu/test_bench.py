"""`perception bench` with an engine that gives masks; no figure is asserted. See `tests.gpu.stand_in`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.bench import PARTS, engines, pipeline, run_bench
from perception.engines.trt.flavour import installed
from tests.gpu.conftest import SIMULATED
from tests.gpu.stand_in import StandIn
from tests.media import make_video
from tests.models import solid, write_model

pytestmark = [
    pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system"),
    pytest.mark.skipif(not SIMULATED, reason="the stand-in reads simulated memory"),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("segmentation", [True, False])
def test_every_part_runs_on_a_gpu(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmentation: bool
) -> None:
    for name, value in {"FRAMES": 6, "KEPT": 4, "PLAIN_FRAMES": 2, "ROUNDS": 1}.items():
        monkeypatch.setattr(pipeline, name, value)
    monkeypatch.setattr(engines, "ENGINES", ())  # a process each, in which nothing stands in for a GPU
    path = write_model(tmp_path / "m.onnx", width=16, height=16, segmentation=segmentation, detection=True)
    halves = np.concatenate([solid("red", 32, 48), solid("green", 32, 48)], axis=1)  # no pixel is a tie
    clip = make_video(tmp_path / "v.mp4", images=[halves] * 6, size_wh=(64, 48))
    parts = PARTS if segmentation else ("kernels", "stages")
    tables = list(run_bench(parts, model=str(path), engine="tensorrt", clip=clip, repeats=1))
    assert [title.partition(",")[0].partition(":")[0] for title, _ in tables] == [
        "kernels", "stages alone", "whole pipeline", "engines"
    ][: len(parts)]  # fmt: skip
    kernels, stages = tables[0][1], tables[1][1]
    assert len(kernels) > 5
    by_name = {row["stage"]: row for row in stages}
    assert set(by_name) == {"decode", "infer", "draw", "encode", "all", "infer, on the GPU"}
    gpu = by_name["infer, on the GPU"]
    assert 0 < gpu["p50_ms"] <= gpu["p95_ms"] <= gpu["p99_ms"] and gpu["fps"] > 0
    if segmentation:
        ours = tables[2][1][0]
        assert ours["run"] == "pipeline" and ours["fps"] > 0 and ours["efficiency"] > 0
