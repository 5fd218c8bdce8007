"""The binary result message: what goes in comes out, and what is no message is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.model import Model, load_model
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import LogitsClassMap, MaskClassMap
from perception.server.viewers.messages import map_size, pack, unpack
from perception.types import Detections, Frame, Prediction
from tests.models import solid, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path: Path = tmp_path_factory.mktemp("models") / "all.onnx"
    with load_model(write_model(path, detection=True, classification=True)) as loaded:
        yield loaded


@pytest.mark.parametrize("seed", range(3))
def test_round_trip(model: Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), (128, 96), interpolation=cv2.INTER_NEAREST)
    detections = Detections(
        rng.uniform(0, 96, (seed, 4)).astype(np.float32),
        rng.uniform(0, 1, seed).astype(np.float32),
        rng.integers(0, 3, seed).astype(np.int32),
    )
    prediction = replace(model.predict(image), detections=detections)
    result = unpack(pack(2**32 - 1, prediction, {"decode": 1.5, "server": 9.0}, longest=1000))
    assert (result.number, result.width, result.height) == (2**32 - 1, 128, 96)
    for name in ("boxes", "scores", "class_ids"):
        assert (getattr(result.detections, name) == getattr(prediction.detections, name)).all()
    assert result.labels == [(i, float(np.float32(p))) for i, p in prediction.labels or []]
    assert prediction.class_map is not None and result.class_map is not None and result.shares is not None
    assert (result.class_map == prediction.class_map.mask).all()  # at the frame's own size
    assert np.allclose(result.shares, prediction.class_map.shares, atol=1e-6)
    assert result.timings["decode"] == 1.5 and result.timings["server"] == 9.0
    assert result.timings["infer"] == pytest.approx(prediction.timings["infer"], rel=1e-6)


def test_nothing_at_all() -> None:
    result = unpack(pack(0, Prediction(Frame(solid("red"))), {}, longest=320))
    assert len(result.detections) == 0 and result.labels == []
    assert result.class_map is None and result.shares is None


def test_without_map_the_shares_stay(model: Model) -> None:
    result = unpack(pack(1, model.predict(solid("green", 80, 60)), {}, longest=0))
    assert result.class_map is None
    assert result.shares is not None and result.shares.tolist() == [0, 1, 0]


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("seed", range(3))
def test_smaller_map_is_that_of_upsampled_logits(mode: str, seed: int) -> None:
    """Oracle: OpenCV enlarges each class's logits, then the padding is cut away and the best class taken."""
    logits = np.random.default_rng(seed).normal(size=(5, 9, 12)).astype(np.float32)
    letterbox = Letterbox.fit(1280, 720, 96, 72, mode)  # type: ignore[arg-type]
    width, height = map_size(1280, 720, 320)
    scale = width / letterbox.width
    whole = [cv2.resize(c, (round(96 * scale), round(72 * height / letterbox.height))) for c in logits]
    top, left = round(letterbox.top * height / letterbox.height), round(letterbox.left * scale)
    expected = np.stack(whole)[:, top : top + height, left : left + width].argmax(0)
    got = LogitsClassMap(logits, letterbox).resized(width, height)
    assert got.shape == expected.shape == (180, 320)
    assert (got == expected).mean() > 0.999


def test_ready_masks_go_the_same_way() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), 3)[None].repeat(6, 0)
    prediction = Prediction(
        Frame(solid("red", 120, 60)), class_map=MaskClassMap(labels, 4, Letterbox.fit(120, 60, 12, 6))
    )
    result = unpack(pack(1, prediction, {}, longest=60))
    assert result.class_map is not None and result.shares is not None
    assert result.class_map.shape == (30, 60)
    assert (result.class_map == np.arange(60)[None] // 15).all()
    assert result.shares.tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("frame", "longest", "size"),
    [
        ((640, 480), 320, (320, 240)),
        ((100, 50), 320, (100, 50)),
        ((1, 9000), 90, (1, 90)),
        ((480, 640), 320, (240, 320)),
    ],
)
def test_map_size(frame: tuple[int, int], longest: int, size: tuple[int, int]) -> None:
    assert map_size(*frame, longest) == size


def test_what_is_no_message(model: Model) -> None:
    message = pack(3, model.predict(solid("red")), {}, longest=64)
    for bad in (b"", b"PCR1", message[:-1], message + b"\0", b"PCR2" + message[4:], message[:60]):
        with pytest.raises(ValueError):
            unpack(bad)
