"""Frames and predictions do not change; others are made of them, which share the pixels."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest

from perception.picture.conversions import to_bgr
from perception.types import Frame, Planes, Prediction

IMAGE = np.zeros((6, 8, 3), np.uint8)


def test_a_frame_at_another_time_shares_the_pixels() -> None:
    planes = Planes.from_i420(np.random.default_rng(0).integers(16, 236, (9, 8), np.uint8))
    first = Frame(planes=planes, index=3, time=0.5, source="a", pts=7, time_base=Fraction(1, 25), arrived=2.0)
    second = first.at(index=0, time=0.0, pts=0)
    assert (second.index, second.time, second.pts) == (0, 0.0, 0)
    assert (second.source, second.time_base, second.arrived) == ("a", Fraction(1, 25), 2.0)
    assert (first.index, first.time, first.pts) == (3, 0.5, 7)
    assert first.duration is None and first.at(duration=0.04).duration == 0.04
    assert first.at(duration=0.04).at(index=9).duration == 0.04
    assert second.planes is planes and second.picture is planes
    np.testing.assert_array_equal(second.image, to_bgr(planes))
    assert first.image is second.image  # converted once, for both


def test_a_frame_with_both_prefers_planes_as_its_picture() -> None:
    planes = Planes.from_i420(np.zeros((9, 8), np.uint8))
    assert Frame(IMAGE, planes=planes).picture is planes
    assert Frame(IMAGE).picture is IMAGE
    assert (Frame(IMAGE).width, Frame(planes=planes).height) == (8, 6)
    with pytest.raises(ValueError, match="needs an image or planes"):
        Frame()


@pytest.mark.parametrize("name", ["index", "time", "source", "pts", "time_base", "arrived", "duration"])
def test_frames_cannot_be_written_to(name: str) -> None:
    frame = Frame(IMAGE, index=1)
    with pytest.raises(AttributeError, match=rf"frame.at\({name}=...\)"):
        setattr(frame, name, 5)
    assert frame.index == 1


@pytest.mark.parametrize("name", ["picture", "class_map", "detections", "timings"])
def test_predictions_cannot_be_written_to(name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(Prediction(Frame(IMAGE)), name, None)
