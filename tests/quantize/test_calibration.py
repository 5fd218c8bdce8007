"""Which pictures are calibrated on, and how they reach the network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import perception
from perception.card import InputSpec
from perception.errors import SourceError, UsageError
from perception.quantize.calibration import CalibrationPictures
from tests.models import write_model
from tests.noise import noise

SPEC = InputSpec(width=64, height=48)


def write_pictures(folder: Path, values: range, size: tuple[int, int] = (64, 48)) -> Path:
    """One gray picture for each value."""
    folder.mkdir(parents=True)
    for value in values:
        cv2.imwrite(str(folder / f"{value:03d}.png"), np.full((size[1], size[0], 3), value, np.uint8))
    return folder


def values_of(pictures: CalibrationPictures) -> list[int]:
    return [int(picture[0, 0, 0, 0]) for picture in pictures]


def test_pictures_are_spread_over_each_folder(tmp_path: Path) -> None:
    low = write_pictures(tmp_path / "low", range(0, 40))
    high = write_pictures(tmp_path / "high", range(200, 220))
    seen = values_of(CalibrationPictures([low, high], SPEC, 10))
    parts = [[v for v in seen if v < 100], [v for v in seen if v >= 100]]
    for part, whole in zip(parts, (range(0, 40), range(200, 220)), strict=True):
        assert len(part) == 5
        assert part == sorted(part) and {whole[0], whole[-1]} <= set(part)
        assert np.diff(part).max() - np.diff(part).min() <= 1


@pytest.mark.parametrize("count", [1, 2, 7, 23, 24, 100])
def test_what_a_small_folder_lacks_the_others_give(tmp_path: Path, count: int) -> None:
    sizes = (3, 20, 1)
    folders = [write_pictures(tmp_path / str(i), range(50 * i, 50 * i + n)) for i, n in enumerate(sizes)]
    pictures = CalibrationPictures(folders, SPEC, count)
    seen = values_of(pictures)
    assert len(seen) == len(set(seen)) == min(count, sum(sizes))
    if count >= 2 * len(sizes):  # a small folder is used up before a large one gives more than the others
        assert sum(v // 50 == 2 for v in seen) == 1 and sum(v // 50 == 0 for v in seen) >= 2
    assert sum(int(source.split(": ")[1].split()[0]) for source in pictures.sources) == len(seen)


def test_pictures_are_what_the_network_sees_when_it_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for resize in ("stretch", "letterbox"):
        folder = tmp_path / resize
        folder.mkdir()
        image = noise(90, 70, 3, seed=rng)
        cv2.imwrite(str(folder / "a.png"), image)
        path = write_model(tmp_path / f"{resize}.onnx", resize=resize)
        with perception.load_model(path, engine="onnxruntime") as model:
            (picture,) = CalibrationPictures([folder], model.card.input, 5)
            assert picture.shape == (1, 48, 64, 3) and picture.dtype == np.uint8
            logits = model.engine.infer(picture)["class_logits"][0]
            class_map = model.predict(image).class_map
            assert class_map is not None
            np.testing.assert_array_equal(logits, class_map.logits)


def test_faults(tmp_path: Path) -> None:
    good = write_pictures(tmp_path / "good", range(3))
    (good / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(SourceError, match=r"001\.png"):
        values_of(CalibrationPictures([good], SPEC))
    with pytest.raises(SourceError, match="no such folder"):
        CalibrationPictures([good, tmp_path / "none"], SPEC)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no images"):
        CalibrationPictures([tmp_path / "empty"], SPEC)
    with pytest.raises(UsageError, match="needs pictures to calibrate on: `images=FOLDER`"):
        CalibrationPictures([], SPEC)
    with pytest.raises(UsageError, match="at least one"):
        CalibrationPictures([good], SPEC, 0)
