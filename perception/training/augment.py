"""Random zoom, crop, flip and colour changes of a labelled picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.training.config import AugmentConfig
from perception.training.dataset import Sample

BORDER_BGR = (127.0, 127.0, 127.0)


class Augmenter:
    """Makes training crops; every draw comes from the generator that the caller gives."""

    def __init__(self, config: AugmentConfig, ignore: int) -> None:
        self.config = config
        self.ignore = ignore

    def __call__(
        self, sample: Sample, crop: tuple[int, int], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A random crop of ``sample``.

        Args:
            sample: the picture.
            crop: ``(width, height)`` of the result.
            rng: source of all randomness.

        Returns:
            Image uint8 ``[h, w, 3]`` BGR and labels uint8 ``[h, w]``; what lies outside the picture is grey
            and ignored.
        """
        matrix = self._placement(sample, crop, rng)
        image = cv2.warpAffine(
            sample.image, matrix, crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=BORDER_BGR
        )
        labels = cv2.warpAffine(
            sample.labels,
            matrix,
            crop,
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(float(self.ignore),),
        )
        if self.config.color:
            image = _shift_colors(image.astype(np.uint8, copy=False), self.config.color, rng)
        if rng.random() < self.config.blur:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2)))
        if rng.random() < self.config.noise:
            noise = np.asarray(rng.normal(0, rng.uniform(2, 8), image.shape), np.float32)
            image = np.asarray(np.clip(image + noise, 0, 255))
        return image.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)

    def _placement(self, sample: Sample, crop: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        """2x3 matrix from picture to crop coordinates (pixel centres at whole numbers)."""
        config = self.config
        height, width = sample.labels.shape
        zoom = np.exp(rng.uniform(np.log(config.scale[0]), np.log(config.scale[1])))
        aspect = np.sqrt(1 + config.stretch) ** rng.uniform(-1, 1)
        scale = np.array([zoom * aspect, zoom / aspect])
        scaled = scale * (width, height)
        slack = scaled - crop  # negative where the crop is larger than the zoomed picture
        low, high = np.minimum(slack, 0), np.maximum(slack, 0)
        target = self._rare_pixel(sample.labels, rng)
        if target is not None:  # the window of offsets that keeps the target inside the crop
            position = (target + 0.5) * scale
            low = np.maximum(low, np.minimum(position - crop, high))
            high = np.maximum(np.minimum(high, position), low)
        offset = rng.uniform(low, high)
        flip = rng.random() < config.flip
        # Half-pixel centres: a pixel's square, not its centre, is what is zoomed.
        matrix = np.array(
            [
                [scale[0], 0.0, 0.5 * scale[0] - 0.5 - offset[0]],
                [0.0, scale[1], 0.5 * scale[1] - 0.5 - offset[1]],
            ]
        )
        if flip:
            matrix[0] = -matrix[0]
            matrix[0, 2] += crop[0] - 1
        return matrix

    def _rare_pixel(self, labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float64] | None:
        """A pixel ``(x, y)`` of a randomly chosen rare class of the picture, or None."""
        if not self.config.rare_classes or rng.random() >= self.config.rare_chance:
            return None
        present = [c for c in self.config.rare_classes if np.any(labels == c)]
        if not present:
            return None
        pixels = np.flatnonzero(labels == present[rng.integers(len(present))])
        y, x = divmod(int(pixels[rng.integers(pixels.size)]), labels.shape[1])
        return np.array([x, y], np.float64)


def _shift_colors(image: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast, gamma and a colour cast in one table per channel, then saturation."""
    gain = 1 + strength * rng.uniform(-1, 1) + 0.25 * strength * rng.uniform(-1, 1, 3)
    contrast = 1 + strength * rng.uniform(-1, 1)
    gamma = np.exp(strength * rng.uniform(-1, 1))
    ramp = (np.linspace(0, 1, 256) ** gamma)[:, None] * gain
    table = np.clip(((ramp - 0.5) * contrast + 0.5) * 255, 0, 255).astype(np.uint8)
    shifted = cv2.LUT(image, table.reshape(1, 256, 3))
    grey = cv2.cvtColor(cv2.cvtColor(shifted, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    saturation = 1 + 1.5 * strength * rng.uniform(-1, 1)
    return cv2.addWeighted(shifted, saturation, grey, 1 - saturation, 0).astype(np.uint8)
