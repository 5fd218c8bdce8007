"""Night, fog, rain, motion blur and compression, which training pictures seldom show."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.training.recipes.segmentation_detection import WeatherConfig

LAMPS = 5
"""Most lamps in a picture at night."""


def weathered(image: NDArray[np.uint8], config: WeatherConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Put the picture, perhaps, at night, in fog or rain, or blurred by motion.

    Args:
        image: uint8 ``[H, W, 3]`` BGR; it is not written to.
        config: the chances.
        rng: source of all randomness.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    if rng.random() < config.motion:
        image = blurred_by_motion(image, rng)
    if rng.random() < config.fog:
        image = in_fog(image, rng)
    if rng.random() < config.rain:
        image = in_rain(image, rng)
    if rng.random() < config.night:
        image = at_night(image, rng)
    return image


def at_night(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Dark, a little blue or orange, with some lamps and the noise of a sensor at high gain."""
    height, width = image.shape[:2]
    ramp = np.linspace(0, 1, 256, dtype=np.float32)
    gain = rng.uniform(0.25, 0.6)
    cast = np.array([1.0, 1.0, 1.0]) + rng.choice([-1, 1]) * rng.uniform(0, 0.25) * np.array([-1.0, 0.0, 1.0])
    table = np.clip(255 * gain * ramp[:, None] ** rng.uniform(1.2, 2.2) * cast, 0, 255).astype(np.uint8)
    dark = cv2.LUT(image, table.reshape(1, 256, 3)).astype(np.float32)
    for _ in range(int(rng.integers(0, LAMPS + 1))):
        reach = int(rng.uniform(0.02, 0.15) * width) + 2
        x, y = int(rng.integers(width)), int(rng.integers(max(int(0.7 * height), 1)))
        left, top = max(x - 3 * reach, 0), max(y - 3 * reach, 0)
        area = dark[top : y + 3 * reach, left : x + 3 * reach]
        rows, columns = np.ogrid[top - y : top - y + area.shape[0], left - x : left - x + area.shape[1]]
        glow = np.exp(-(rows**2 + columns**2) / (2.0 * (reach / 2) ** 2)).astype(np.float32)
        area += glow[..., None] * np.float32(rng.uniform(40, 220)) * np.array([0.6, 0.85, 1.0], np.float32)
    # shot noise at high gain; coarse grain is made at half size and costs a quarter
    grain = rng.normal(0, rng.uniform(2, 9), ((height + 1) // 2, (width + 1) // 2, 3)).astype(np.float32)
    dark += cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(dark, 0, 255).astype(np.uint8)


def in_fog(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mixed with grey: most at a horizon, less towards the bottom, where things are near (Koschmieder's law)."""
    height = image.shape[0]
    horizon = rng.uniform(0.3, 0.6)
    below = np.clip((np.arange(height) / height - horizon) / (1 - horizon), 0, 1)
    thickness = rng.uniform(0.3, 0.8) * np.exp(-rng.uniform(0.5, 2.0) * below)
    weight = thickness.astype(np.float32)[:, None, None]
    grey = np.float32(rng.uniform(150, 230))
    return np.clip(image * (1 - weight) + grey * weight, 0, 255).astype(np.uint8)


def in_rain(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bright streaks in one direction, and less contrast."""
    height, width = image.shape[:2]
    drops = np.zeros((height, width), np.uint8)
    count = int(rng.uniform(0.0005, 0.003) * height * width)
    drops[rng.integers(height, size=count), rng.integers(width, size=count)] = 255
    length = int(rng.integers(7, 21))
    streaks = cv2.filter2D(drops, cv2.CV_32F, _line(length, rng.uniform(70, 110)) * length)
    contrast = rng.uniform(0.7, 1.0)
    soft = image * np.float32(contrast) + np.float32(110 * (1 - contrast))
    return np.clip(soft + np.minimum(streaks, 255)[..., None] * np.float32(rng.uniform(0.1, 0.3)), 0, 255).astype(
        np.uint8
    )


def blurred_by_motion(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Averaged along a line of 3 to 11 pixels."""
    return cv2.filter2D(image, -1, _line(int(rng.integers(3, 12)), rng.uniform(0, 180))).astype(np.uint8, copy=False)


def compressed(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Through JPEG of a quality between 15 and 70."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 71))])
    assert done
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _line(length: int, degrees: float) -> NDArray[np.float32]:
    """Return a kernel ``[length, length]`` that averages along a line."""
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2
    step = np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))]) * middle
    ends = [tuple(round(v) for v in middle + sign * step) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return kernel / np.float32(kernel.sum())
