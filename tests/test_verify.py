"""`perception verify`: engines that agree, an engine that does not, and boxes that are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou
from typer.testing import CliRunner

from perception import EngineError, Frame, ModelError, UsageError
from perception.commands.main import app
from perception.diagnostics import verify
from perception.diagnostics.verify import match_boxes
from perception.engines import engine_status
from perception.types import Detections
from tests.fixtures import own_cache  # noqa: F401
from tests.models import write_model


def frames(n: int = 3) -> list[Frame]:
    rng = np.random.default_rng(0)
    blocks = [np.kron(rng.integers(0, 2, (3, 4, 3)) * 255, np.ones((16, 16, 1), int)) for _ in range(n)]
    return [Frame(block.astype(np.uint8), index=i) for i, block in enumerate(blocks)]


def test_every_engine_that_is_present_agrees(tmp_path: Path) -> None:
    path = write_model(tmp_path / "all.onnx", detection=True, classification=True)
    results = verify.verify(path, frames())
    assert results[0].description.startswith("reference") and results[0].logits is None
    present = {name for name in ("openvino", "onnxruntime", "torch") if engine_status(name)[0]}
    assert {r.engine for r in results} == present and len(present) >= 2
    for result in results[1:]:
        assert not result.fault and result.logits is not None and result.scores is not None
        exact = result.precision == "fp32"
        assert result.logits < (1e-4 if exact else 0.2)
        assert result.mask == pytest.approx(1, abs=0 if exact else 0.02) and result.worst_mask <= result.mask
        assert result.boxes == 1 if exact else result.boxes > 0.9
        assert result.probabilities is not None and result.probabilities < (1e-5 if exact else 0.05)
        assert result.least == min(result.mask, result.boxes)
        assert result.verdict == "good"
    assert results[0].verdict == "reference"


def test_an_engine_that_is_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from perception.engines.onnxruntime import OnnxRuntimeEngine

    path = write_model(tmp_path / "all.onnx", detection=True)
    run = OnnxRuntimeEngine._run

    def wrong(self: Any, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = run(self, images)
        outputs["class_logits"] = outputs["class_logits"].copy()
        outputs["class_logits"][:, :, :6] = outputs["class_logits"][:, ::-1, :6]  # the upper half, classes reversed
        outputs["boxes"] = outputs["boxes"] + np.float32(8)
        return outputs

    monkeypatch.setattr(OnnxRuntimeEngine, "_run", wrong)
    (result,) = [r for r in verify.verify(path, frames()) if r.engine == "onnxruntime"]
    assert result.logits is not None and result.logits > 1
    assert result.mask is not None and 0.4 < result.mask < 0.95 and result.boxes == 0 and result.least == 0
    assert result.verdict == "differs"


def test_an_engine_that_refuses_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("Check 'false' failed: no such layer")

    monkeypatch.setattr("perception.engines.onnxruntime.open_model", refuse)
    path = write_model(tmp_path / "colors.onnx")
    results = verify.verify(path, frames(1))
    faults = [r for r in results if r.fault]
    assert {r.engine for r in faults} == {"onnxruntime"} and "no such layer" in faults[0].fault
    assert faults[0].least == 0 and faults[0].verdict == "failed"


@pytest.mark.parametrize(
    ("precision", "share", "verdict"),
    [("fp32", 0.9995, "good"), ("fp32", 0.99, "differs"), ("fp16", 0.99, "good"), ("bf16", 0.9, "differs"),
     ("int8", 0.9, "quantised"), ("int8", 0.3, "differs")],
)  # fmt: skip
def test_what_is_good_depends_on_the_precision(precision: str, share: float, verdict: str) -> None:
    for shares in ({"mask": share, "boxes": 1.0}, {"mask": 1.0, "boxes": share}, {"mask": share}):
        assert verify.Agreement("openvino", precision, **shares).verdict == verdict


def test_what_cannot_be_verified(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    with pytest.raises(UsageError, match="no frames"):
        verify.verify(path, [])
    with pytest.raises(ModelError):
        verify.verify(tmp_path / "no.onnx", frames(1))
    with pytest.raises(EngineError, match="to compare with"):
        verify.verify(path, frames(1), engines=("tensorrt",))


@pytest.mark.parametrize("seed", range(4))
def test_partners_are_of_a_class_overlap_and_are_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 80, (30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (30, 2))], 1).astype(np.float32)
    scores = np.sort(rng.random(30).astype(np.float32))[::-1].copy()
    ids = rng.integers(0, 3, 30).astype(np.int32)
    moved = boxes + rng.normal(0, 0.6, boxes.shape).astype(np.float32)
    order = rng.permutation(30)[:25]
    ours, theirs = Detections(boxes, scores, ids), Detections(moved[order], scores[order], ids[order])
    pairs = match_boxes(ours, theirs, iou=0.8)
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(moved[order])).numpy()
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs) > 5
    assert all(overlaps[i, j] >= 0.8 - 1e-5 and ids[i] == ids[order][j] for i, j in pairs)
    # Whoever has no partner has nobody left who would do.
    alone = set(range(30)) - {i for i, _ in pairs}
    free = set(range(25)) - {j for _, j in pairs}
    assert not any(overlaps[i, j] > 0.8 + 1e-5 and ids[i] == ids[order][j] for i in alone for j in free)


def test_the_command(tmp_path: Path) -> None:
    path = str(write_model(tmp_path / "colors.onnx"))
    arguments = ["verify", path, "--clip", "synthetic:?size=64x48&frames=9", "--frames", "2", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--require", "0.9"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert rows[0]["engine"] == "torch" and {"openvino", "onnxruntime"} <= {row["engine"] for row in rows}
    assert all(row["mask"] > 0.9 for row in rows[1:])
    text = CliRunner().invoke(app, [word for word in arguments if word != "--json"]).stdout
    shown = [key for key in rows[1] if key in text and rows[1][key] not in (None, "")]
    explained = [line.partition(":")[0] for line in text.splitlines() if ": " in line]
    assert {"logits", "mask", "worst_mask"} <= set(shown) <= {"engine", "precision", "description", *explained}
    assert text.strip().splitlines()[-1] == "All engines agree as far as their precisions allow."


def test_the_command_fails_when_engines_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.engines.onnxruntime.open_model", lambda *_: 1 / 0)
    path = str(write_model(tmp_path / "colors.onnx"))
    arguments = ["verify", path, "--clip", "synthetic:?size=64x48&frames=2", "--frames", "1"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0 and shown.stdout.strip().splitlines()[-1].startswith("NOT GOOD: onnxruntime")
    assert CliRunner().invoke(app, [*arguments, "--require", "0.9"]).exit_code == 1
