"""Smoothing as a stage: by name, each source with its own, in files and on the server."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from perception.card import ModelCard, validate_card
from perception.commands.main import app
from perception.errors import UsageError
from perception.picture.letterbox import Letterbox
from perception.pipeline import StageChain
from perception.postprocess.class_maps import LogitsClassMap, MaskClassMap
from perception.server.options import Options
from perception.stages.factories import find_stage
from perception.stages.smooth import SmoothStage
from perception.types import Frame, Prediction
from tests.media import make_video
from tests.models import write_model

BOX = Letterbox.fit(64, 48, 64, 48)


def card_of(task: str = "segmentation") -> ModelCard:
    data = {"name": "s", "licence": "none", "input": {"width": 64, "height": 48}, task: {"classes": ["road", "sky"]}}
    return validate_card(data, "test")


def at(index: int, value: float) -> Prediction:
    logits = np.stack([np.full((12, 16), value), np.full((12, 16), -value)]).astype(np.float32)
    frame = Frame(np.full((48, 64, 3), 90, np.uint8), index=index, time=index / 30)
    return Prediction(frame, class_map=LogitsClassMap(logits, BOX))


def test_found_by_name_and_made_for_each_source() -> None:
    stage = find_stage("smooth")
    first, second = StageChain(card_of(), [stage]), StageChain(card_of(), [stage])
    for index in range(6):
        flickering, steady = first.apply(at(index, -0.5 if index == 3 else 1.0)), second.apply(at(index, -1.0))
        assert flickering.class_map is not None and steady.class_map is not None
        assert not flickering.class_map.mask.any()  # a frame alone decides nothing
        assert steady.class_map.mask.all()
    assert "smooth" in flickering.timings
    assert at(3, -0.5).class_map.mask.all()  # type: ignore[union-attr]  # or this would prove nothing


def test_what_cannot_be_smoothed_is_told() -> None:
    with pytest.raises(UsageError, match="no masks to smooth; s does detection only"):
        find_stage("smooth")(card_of("detection"))
    with pytest.raises(UsageError, match="must be positive"):
        SmoothStage(card_of(), 0.0)
    stage = SmoothStage(card_of())
    with pytest.raises(UsageError, match="this prediction has none"):
        stage(replace(at(0, 1), class_map=None))
    mask = MaskClassMap(np.zeros((12, 16), np.uint8), 2, BOX)
    with pytest.raises(UsageError, match="masks without logits cannot be smoothed"):
        stage(replace(at(0, 1), class_map=mask))


def test_a_flickering_video_has_steady_masks(tmp_path: Path) -> None:
    """Every fourth frame the left half is a little nearer to another colour: with smoothing it keeps its class."""
    model = write_model(tmp_path / "colors.onnx")
    usual, other = (0, 112, 144), (0, 134, 122)  # BGR between green and red
    images = []
    for index in range(24):
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :] = other if index % 4 == 3 else usual
        image[:, 32:] = (255, 0, 0)
        images.append(image)
    make_video(tmp_path / "flicker.mp4", frames=24, size_wh=(64, 48), images=images)

    def masks(*flags: str) -> list[np.ndarray]:
        folder = tmp_path / ("smooth" if flags else "plain")
        args = ["annotate", str(tmp_path / "flicker.mp4"), "--masks", str(folder), "-m", str(model), *flags]
        result = CliRunner().invoke(app, [*args, "--engine", "onnxruntime"])
        assert result.exit_code == 0, result.output
        return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())]

    plain, smooth = masks(), masks("--smooth")
    assert len(plain) == len(smooth) == 24
    flickers = [sum((a != b).any() for a, b in pairwise(found)) for found in (plain, smooth)]
    assert flickers[0] >= 10 and flickers[1] == 0


def test_options_of_a_client_smooth_once() -> None:
    card, operator = card_of(), [find_stage("panoptic"), find_stage("smooth")]
    wanted = Options(smooth=True)
    assert Options().stages(card) == []
    assert [stage.name for stage in wanted.stages(card)] == ["smooth"]
    assert [stage.name for stage in wanted.stages(card, operator)] == ["panoptic", "smooth"]
    assert wanted.interpretation(card) != Options().interpretation(card)
    assert wanted.interpretation(card, operator) == Options().interpretation(card, operator)
    assert Options(smooth=True, opacity=0.1).interpretation(card) == wanted.interpretation(card)
