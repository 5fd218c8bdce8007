"""Night, fog, rain, motion blur and compression of training pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch")

from perception.training.data.weather import (
    at_night,
    blurred_by_motion,
    compressed,
    in_fog,
    in_rain,
    weathered,
)
from perception.training.recipes.segmentation_detection import WeatherConfig

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
ALWAYS = WeatherConfig(night=1, fog=1, rain=1, motion=1)
NEVER = WeatherConfig(night=0, fog=0, rain=0, motion=0)
CHANGES: dict[str, Change] = {
    "night": at_night,
    "fog": in_fog,
    "rain": in_rain,
    "motion": blurred_by_motion,
    "jpeg": compressed,
    "all": lambda image, rng: weathered(image, ALWAYS, rng),
}
SIZES = [(1, 1), (2, 3), (5, 64), (64, 5), (72, 96), (121, 77)]


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """Uneven blocks of colour, with the lightest and the darkest there is."""
    rng = np.random.default_rng(seed)
    height, width = size
    image = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), np.uint8).repeat(4, 0).repeat(4, 1)
    image[0], image[-1] = 0, 255
    return np.ascontiguousarray(image[:height, :width])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(CHANGES))
def test_pictures_stay_pictures_and_are_not_written_to(name: str, size: tuple[int, int]) -> None:
    for seed in range(12):
        image = picture(size, seed)
        before = image.copy()
        image.flags.writeable = False
        made = CHANGES[name](image, np.random.default_rng(seed))
        assert made.shape == image.shape and made.dtype == np.uint8
        assert np.array_equal(image, before)
        assert not np.shares_memory(made, image)


@pytest.mark.parametrize("name", list(CHANGES))
def test_the_generator_decides_everything(name: str) -> None:
    image, made = picture((72, 96), 0), []
    for seed in range(6):
        np.random.seed(seed)  # noqa: NPY002 - the global state must not matter
        first, second = (CHANGES[name](image, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(first, second)
        made.append(first)
    assert len({m.tobytes() for m in made}) > 3


def test_chances_are_chances() -> None:
    image = picture((24, 32), 1)
    assert weathered(image, NEVER, np.random.default_rng(0)) is image
    for name in ("night", "fog", "rain", "motion"):
        config = WeatherConfig.model_validate({**NEVER.model_dump(), name: 0.3})
        changed = sum(
            not np.array_equal(weathered(image, config, np.random.default_rng(seed)), image) for seed in range(400)
        )
        assert 80 < changed < 165, name


@pytest.mark.parametrize("seed", range(8))
def test_night_is_dark_and_fog_takes_contrast(seed: int) -> None:
    image = picture((72, 96), seed)
    rng = np.random.default_rng(seed)
    assert np.median(at_night(image, rng)) < 0.7 * np.median(image)
    assert in_fog(image, rng).std() < 0.9 * image.std()
    assert in_rain(image, rng).std() < image.std()
    blurred = blurred_by_motion(image, rng)
    assert (
        np.abs(np.diff(blurred.astype(int), axis=0)).mean() + np.abs(np.diff(blurred.astype(int), axis=1)).mean()
        < np.abs(np.diff(image.astype(int), axis=0)).mean() + np.abs(np.diff(image.astype(int), axis=1)).mean()
    )
