"""Square windows of scenes, with one object in them or none: what a sliding-window detector learns from."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.classics.localisation.recipe import WindowsConfig
from perception.training.data.augment import BORDER_BGR
from perception.training.data.masks import Sample
from perception.training.data.pictures import NO_BOX, Labelled

TRIES = 20
PART = 0.25  # a window with less than this share of an object in it does not show it
ZOOM = 2.0  # the most that a window enlarges: small objects stay blurred, as they are when windows slide over them


class WindowMaker:
    """Cuts windows out of pictures with boxes.

    Args:
        config: side of the windows, and how far an object fills one.
    """

    def __init__(self, config: WindowsConfig) -> None:
        self.config = config

    def __call__(self, sample: Sample, rng: np.random.Generator, background: bool) -> Labelled:
        """Choose a window of ``sample``.

        Args:
            sample: a picture with boxes.
            rng: source of all randomness.
            background: whether no object should be in it. Where a picture is full of objects, or has none that is
                large enough, it becomes the other kind.

        Returns:
            The window, uint8 ``[side, side, 3]``; the object's class, or -1; its box in 0..1 of the window.
        """
        assert sample.boxes is not None
        objects = np.flatnonzero(sample.boxes.class_ids >= 0)
        sides = (sample.boxes.boxes[:, 2:] - sample.boxes.boxes[:, :2]).max(1, initial=0)
        least = self.config.fill[0] * self.config.side / ZOOM
        objects = objects[sides[objects] >= least]
        if background or not len(objects):
            made = self._empty(sample, rng)
            if made is not None or not len(objects):
                return made or self._anywhere(sample, rng)
        return self._around(sample, int(rng.choice(objects)), rng)

    def _around(self, sample: Sample, which: int, rng: np.random.Generator) -> Labelled:
        """Return a window that holds all of one object."""
        assert sample.boxes is not None
        box = sample.boxes.boxes[which].astype(np.float64)
        longer = float((box[2:] - box[:2]).max())
        extent = longer / rng.uniform(*self.config.fill)  # of the window, in pixels of the picture
        extent = max(extent, self.config.side / ZOOM)
        low, high = box[2:] - extent, box[:2]
        origin = rng.uniform(np.minimum(low, high), high)
        inside = (box - [*origin, *origin]) / extent
        label = int(sample.boxes.class_ids[which])
        return Labelled(self._cut(sample, origin, extent), label, inside.astype(np.float32), sample.name)

    def _empty(self, sample: Sample, rng: np.random.Generator) -> Labelled | None:
        """Return a window that shows no object, or objects far too small for it; None where none was found."""
        assert sample.boxes is not None
        boxes = sample.boxes.boxes.astype(np.float64)
        for _ in range(TRIES):
            origin, extent = self._place(sample, rng)
            low, high = np.maximum(boxes[:, :2], origin), np.minimum(boxes[:, 2:], origin + extent)
            shown = np.maximum(high - low, 0)
            part = shown.prod(1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-9)
            small = shown.max(1, initial=0) < 0.5 * self.config.fill[0] * extent
            if ((part < PART) | small).all():
                return Labelled(self._cut(sample, origin, extent), -1, NO_BOX, sample.name)
        return None

    def _anywhere(self, sample: Sample, rng: np.random.Generator) -> Labelled:
        return Labelled(self._cut(sample, *self._place(sample, rng)), -1, NO_BOX, sample.name)

    def _place(self, sample: Sample, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
        """Origin and extent of a window anywhere in the picture, in its pixels."""
        height, width = sample.image.shape[:2]
        smallest = min(self.config.side / ZOOM, width, height)
        extent = float(np.exp(rng.uniform(np.log(smallest), np.log(max(min(width, height), smallest)))))
        return rng.uniform(0, np.maximum(np.array([width, height]) - extent, 0)), extent

    def _cut(self, sample: Sample, origin: NDArray[np.float64], extent: float) -> NDArray[np.uint8]:
        side = self.config.side
        scale = side / extent
        image = sample.image
        if scale < 0.5:  # pixels would be skipped: average first
            factor = 2.0 * scale
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA).astype(np.uint8)
            ratio = np.array([image.shape[1] / sample.image.shape[1], image.shape[0] / sample.image.shape[0]])
        else:
            ratio = np.ones(2)
        steps = scale / ratio
        # half-pixel centres: a pixel's square, not its centre, is what is zoomed
        shift = 0.5 * steps - 0.5 - origin * scale
        matrix = np.array([[steps[0], 0, shift[0]], [0, steps[1], shift[1]]])
        return cv2.warpAffine(
            image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=BORDER_BGR
        ).astype(np.uint8, copy=False)
