"""Random zoom, crop, flip and colour changes of a labelled picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.picture.letterbox import PAD, Letterbox, ResizeMode
from perception.training.data.boxes import joined
from perception.training.data.masks import Sample
from perception.training.data.weather import compressed, weathered
from perception.training.recipes.detection import BoxAugmentConfig
from perception.training.recipes.segmentation_detection import AugmentConfig

BORDER_BGR = (float(PAD),) * 3


class Augmenter:
    """Makes training crops; every draw comes from the generator that the caller gives.

    Args:
        config: crops and what is changed at random.
        ignore: label id of pixels that count for nothing.
        size: ``(width, height)`` that the network is made for: a zoom of 1 is the picture fitted into it, as it is
            when the network is used.
        boxes: how pictures with boxes alone are zoomed and put together, and which boxes stay.
        resize: how it is fitted.
    """

    def __init__(
        self,
        config: AugmentConfig,
        ignore: int,
        size: tuple[int, int],
        boxes: BoxAugmentConfig | None = None,
        resize: ResizeMode = "stretch",
    ) -> None:
        self.config = config
        self.ignore = ignore
        self.size = size
        self.boxes = boxes or BoxAugmentConfig()
        self.resize: ResizeMode = resize

    def __call__(self, sample: Sample, crop: tuple[int, int], rng: np.random.Generator) -> Sample:
        """Cut a random crop of ``sample``.

        Args:
            sample: the picture.
            crop: ``(width, height)`` of the result.
            rng: source of all randomness.

        Returns:
            The crop, with what the sample has of labels and boxes; what lies outside the picture is grey and
            ignored.
        """
        rules = self.boxes if sample.labels is None else self.config
        return self._recolored(self._cut(sample, crop, rng, rules.scale, rules.stretch), rng)

    def mosaic(self, samples: Sequence[Sample], crop: tuple[int, int], rng: np.random.Generator) -> Sample:
        """Crops of four pictures with boxes, side by side around a random point (Bochkovskiy et al. 2020).

        Args:
            samples: the four pictures; all have boxes. Labels are not kept.
            crop: ``(width, height)`` of the whole.
            rng: source of all randomness.
        """
        width, height = crop
        x, y = (int(side * rng.uniform(0.3, 0.7)) for side in crop)
        canvas = np.empty((height, width, 3), np.uint8)
        parts = []
        corners = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
        for sample, (left, top, right, bottom) in zip(samples, corners, strict=True):
            unlabelled = replace(sample, labels=None)
            size = (right - left, bottom - top)
            part = self._cut(unlabelled, size, rng, self.boxes.mosaic_scale, self.boxes.stretch)
            assert part.boxes is not None
            canvas[top:bottom, left:right] = part.image
            parts.append(part.boxes.moved(left, top))
        name = "+".join(sample.name for sample in samples)
        return self._recolored(Sample(name, canvas, None, joined(parts)), rng)

    def _cut(
        self,
        sample: Sample,
        crop: tuple[int, int],
        rng: np.random.Generator,
        scale: tuple[float, float],
        stretch: float,
    ) -> Sample:
        matrix = self._placement(sample, crop, rng, scale, stretch)
        labels = boxes = None
        if sample.labels is None:
            image = _shrunk(sample.image, matrix, crop)
        else:
            image = cv2.warpAffine(
                sample.image,
                matrix,
                crop,
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=BORDER_BGR,
            ).astype(np.uint8, copy=False)
            labels = cv2.warpAffine(
                sample.labels,
                matrix,
                crop,
                flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(float(self.ignore),),
            ).astype(np.uint8, copy=False)
        if sample.boxes is not None:
            boxes = sample.boxes.warped(matrix, crop, self.boxes.min_visible, self.boxes.min_side)
        return replace(sample, image=image, labels=labels, boxes=boxes)

    def _recolored(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = sample.image
        if self.config.color:
            image = shift_colors(image, self.config.color, rng)
        if self.config.weather is not None:
            image = weathered(image, self.config.weather, rng)
        if rng.random() < self.config.blur:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2))).astype(np.uint8, copy=False)
        if rng.random() < self.config.noise:
            noise = np.asarray(rng.normal(0, rng.uniform(2, 8), image.shape), np.float32)
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        if rng.random() < self.config.jpeg:
            image = compressed(image, rng)
        return replace(sample, image=image)

    def _placement(
        self,
        sample: Sample,
        crop: tuple[int, int],
        rng: np.random.Generator,
        scale_range: tuple[float, float],
        stretch: float,
    ) -> NDArray[np.float64]:
        """2x3 matrix from picture to crop coordinates (pixel centres at whole numbers)."""
        height, width = sample.image.shape[:2]
        zoom = np.exp(rng.uniform(np.log(scale_range[0]), np.log(scale_range[1])))
        aspect = np.sqrt(1 + stretch) ** rng.uniform(-1, 1)
        fitted = Letterbox.fit(width, height, *self.size, self.resize)
        scale = np.array([zoom * aspect, zoom / aspect]) * (fitted.width / width, fitted.height / height)
        scaled = scale * (width, height)
        slack = scaled - crop  # negative where the crop is larger than the zoomed picture
        low, high = np.minimum(slack, 0), np.maximum(slack, 0)
        target = None if sample.labels is None else self._rare_pixel(sample.labels, rng)
        if target is not None:  # the window of offsets that keeps the target inside the crop
            position = (target + 0.5) * scale
            low = np.maximum(low, np.minimum(position - crop, high))
            high = np.maximum(np.minimum(high, position), low)
        offset = rng.uniform(low, high)
        flip = rng.random() < self.config.flip
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
        """Choose a pixel ``(x, y)`` of a randomly chosen rare class of the picture, or None."""
        if not self.config.rare_classes or rng.random() >= self.config.rare_chance:
            return None
        present = [c for c in self.config.rare_classes if np.any(labels == c)]
        if not present:
            return None
        pixels = np.flatnonzero(labels == present[rng.integers(len(present))])
        y, x = divmod(int(pixels[rng.integers(pixels.size)]), labels.shape[1])
        return np.array([x, y], np.float64)


def _shrunk(image: NDArray[np.uint8], matrix: NDArray[np.float64], crop: tuple[int, int]) -> NDArray[np.uint8]:
    """``image`` warped by ``matrix``; averaged to half its size first where single pixels would be skipped."""
    height, width = image.shape[:2]
    if np.abs(np.diag(matrix[:, :2])).max() <= 0.6 and min(height, width) >= 2:
        half = (width // 2, height // 2)
        factor = np.array([width / half[0], height / half[1]])
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        # A half-size pixel at x has its centre at factor * (x + 0.5) - 0.5 of the picture.
        matrix = np.column_stack((matrix[:, :2] * factor, matrix[:, 2] + matrix[:, :2] @ (0.5 * factor - 0.5)))
    return cv2.warpAffine(
        image, matrix, crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=BORDER_BGR
    ).astype(np.uint8, copy=False)


def shift_colors(image: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
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
