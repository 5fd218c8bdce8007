"""The motion of the camera: told from pictures, and tracks that go along with it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception.card import validate_card
from perception.stages.track import TrackStage
from perception.tracking.camera import CameraMotion
from perception.tracking.tracker import Tracker
from perception.types import Detections, Frame, Planes, Prediction
from tests.tracking.scenes import detections

NONE = np.zeros((0, 4), np.float32)


def world(seed: int, width: int = 1600, height: int = 900) -> np.ndarray:
    """A picture with corners of all sizes."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width), np.float32)
    for cells in (12, 40, 120):
        coarse = rng.random((cells * 9 // 16, cells)).astype(np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    return cv2.cvtColor((picture * 80).astype(np.uint8), cv2.COLOR_GRAY2BGR)


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    made = cv2.getRotationMatrix2D((640, 360), angle, scale)
    made[:, 2] += shift
    return made


def planes_of(image: np.ndarray) -> Planes:
    i420 = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    return Planes.from_i420(np.ascontiguousarray(i420))


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(
    ("angle", "scale", "shift"), [(0, 1, (24, -12)), (1.5, 1, (0, 0)), (0, 1.03, (-5, 8)), (-1, 0.98, (40, 20))]
)
def test_the_motion_is_found(angle: float, scale: float, shift: tuple[float, float], planes: bool) -> None:
    true = similarity(angle, scale, shift)
    first = world(1)[90:810, 160:1440].copy()
    second = cv2.warpAffine(first, true, (1280, 720), borderMode=cv2.BORDER_REFLECT)
    camera = CameraMotion()
    assert camera.update(planes_of(first) if planes else first, NONE) is None
    found = camera.update(planes_of(second) if planes else second, NONE)
    assert found is not None
    corners = np.array([[0, 0, 1], [1280, 0, 1], [0, 720, 1], [1280, 720, 1]], np.float64)
    assert np.abs(corners @ found.T - corners @ true.T).max() < 3


def test_what_moves_by_itself_is_not_looked_at() -> None:
    ground = world(2)[:720, :1280].copy()
    thing = world(3)[:600, :900].copy()
    frames = []
    for x in (60, 90):
        frame = ground.copy()
        frame[60:660, x : x + 900] = thing
        frames.append(frame)
    camera = CameraMotion()
    camera.update(frames[0], NONE)
    assert camera.update(frames[1], np.array([[60, 60, 960, 660]], np.float32)) is None


@pytest.mark.parametrize("kind", ["still", "flat", "cut", "tiny", "other size"])
def test_no_motion_where_none_can_be_told(kind: str) -> None:
    first = world(4)[:720, :1280].copy()
    second = {
        "still": first.copy(),
        "flat": np.full_like(first, 90),
        "cut": world(5)[:720, :1280].copy(),
        "tiny": first[:8, :8].copy(),
        "other size": first[:360, :640].copy(),
    }[kind]
    camera = CameraMotion()
    if kind == "tiny":
        camera.update(second, NONE)
    camera.update(first if kind != "flat" else second, NONE)
    assert camera.update(second, NONE) is None


def shaken(frame: int) -> tuple[int, int]:
    """Where the window onto the world is: it pans, and jumps to and fro."""
    return 20 + 4 * frame, 60 + (70 if frame % 7 in (3, 4) else 0)


def test_tracks_go_along_with_the_camera() -> None:
    ids = {True: set(), False: set()}
    for told in ids:
        tracker = Tracker()
        for frame in range(60):
            x, y = shaken(frame)
            before = shaken(max(frame - 1, 0))
            boxes = [[400 - x, 200 - y, 440 - x, 260 - y], [700 - x, 320 - y, 735 - x, 390 - y]]
            motion = np.array([[1, 0, before[0] - x], [0, 1, before[1] - y]], np.float64) if told else None
            tracked = tracker.update(detections(boxes, [0.9, 0.8], [0, 0]), frame / 30, motion=motion)
            assert tracked.track_ids is not None
            ids[told] |= set(tracked.track_ids.tolist())
            if told and frame > 1:
                nearest = np.abs(tracked.boxes[:, None] - np.array(boxes)[None]).max(axis=2).min(axis=1)
                assert nearest.max() < 2
                trail = tracker.trails[1]  # of what stands still, whatever the camera does
                assert np.ptp(trail, axis=0).max() < 3
    assert ids[True] == {1, 2}
    assert len(ids[False]) > 2  # or this would prove nothing


@pytest.mark.parametrize("planes", [False, True])
def test_the_stage_tells_the_motion_from_the_pictures(planes: bool) -> None:
    data = {"name": "b", "licence": "none", "input": {"width": 64, "height": 48}, "detection": {"classes": ["car"]}}
    card = validate_card(data, "test")
    ground = world(6)
    ids = {True: set(), False: set()}
    for camera in ids:
        stage = TrackStage(card, camera=camera)
        for frame in range(40):
            x, y = shaken(frame)
            picture = ground[y : y + 480, x : x + 640].copy()
            boxes = np.array([[400 - x, 300 - y, 440 - x, 360 - y], [600 - x, 380 - y, 635 - x, 450 - y]], np.float32)
            found = Detections(boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int32))
            shown = Frame(planes=planes_of(picture), time=frame / 30) if planes else Frame(picture, time=frame / 30)
            result = stage(Prediction(shown, found)).detections
            assert result is not None and result.track_ids is not None
            ids[camera] |= set(result.track_ids.tolist())
    assert ids[True] == {1, 2}
    assert len(ids[False]) > 2


@pytest.mark.parametrize("planes", [False, True])
def test_tracks_end_at_a_cut_and_nowhere_else(planes: bool) -> None:
    """Two scenes with a car at the same place: two cars. A flash, a fast pan and a van close by are no cuts."""
    data = {"name": "b", "licence": "none", "input": {"width": 64, "height": 48}, "detection": {"classes": ["car"]}}
    stage, camera = TrackStage(validate_card(data, "test")), CameraMotion()
    scenes, van = (world(41), world(42)), world(43)[:440, :400]
    cuts, ids = [], []
    for frame in range(60):
        x = 100 + (25 * (frame - 40) if frame >= 40 else 0)  # a pan
        picture = scenes[frame >= 20][90:630, x : x + 960].copy()
        if frame in (8, 9):
            picture = cv2.convertScaleAbs(picture, alpha=0.5, beta=120)  # a flash
        if 25 <= frame < 35:
            picture[50:490, 40 * (frame - 25) : 40 * (frame - 25) + 400] = van
        car = np.array([[400, 300, 480, 360]], np.float32) - np.array([[x - 100, 0, x - 100, 0]], np.float32)
        found = Detections(car, np.array([0.9], np.float32), np.zeros(1, np.int32))
        shown = Frame(planes=planes_of(picture), time=frame / 30) if planes else Frame(picture, time=frame / 30)
        tracked = stage(Prediction(shown, found)).detections
        camera.update(shown.picture, car)
        cuts += [frame] if camera.cut else []
        assert tracked is not None and tracked.track_ids is not None
        ids.append(tracked.track_ids.tolist())
    assert cuts == [20]
    assert {i for frame in ids[:20] for i in frame} == {1} and {i for frame in ids[20:] for i in frame} == {2}


def noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("contrast", [0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("shift", [(4, 0), (0, 4), (3, -3), (30, 8)])
def test_a_slow_pan_is_motion_however_weak_the_corners(contrast: float, shift: tuple[int, int]) -> None:
    ground = (world(7).astype(np.float32) * contrast + 90).astype(np.uint8)
    camera = CameraMotion()
    total, told = np.zeros(2), np.zeros(2)
    for frame in range(20):  # beyond what points are kept for
        x, y = 60 + shift[0] * frame, 90 + shift[1] * frame
        found = camera.update(ground[y : y + 540, x : x + 960], NONE)
        if frame:
            total -= shift
            told += 0 if found is None else found @ [480, 270, 1] - [480, 270]
    assert np.abs(told - total).max() < 0.08 * np.abs(total).max() + 2


@pytest.mark.parametrize("seed", range(4))
def test_a_camera_that_stands_still_has_no_motion_though_its_pictures_are_noisy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ground, thing = world(10 + seed)[:720, :1280], world(20 + seed)[:300, :300]
    camera = CameraMotion()
    for frame in range(40):
        picture = noisy(ground, rng)
        x = 20 * frame
        picture[200:500, x : x + 300] = thing[:, : 1280 - x]
        assert camera.update(picture, np.array([[x - 20, 200, x + 280, 500]], np.float32)) is None


def test_the_motion_is_found_again_after_a_pause_and_after_a_cut() -> None:
    first, second = world(31), world(32)
    camera = CameraMotion()
    moves = [0] * 20 + [8] * 20 + [0] * 20 + [-8] * 20
    x = 100
    for at, move in enumerate(moves):
        x += move
        ground = first if at < 70 else second
        found = camera.update(ground[90:810, x : x + 1280], NONE)
        if at in (0, 70) or not move:
            assert found is None
        else:
            assert found is not None
            np.testing.assert_allclose(found @ [640, 360, 1], [640 - move, 360], atol=1.5)
