"""Batches of whole pictures, or of windows of them, changed at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perception.training.data.augment import BORDER_BGR, shift_colors
from perception.training.data.batches import prefetch
from perception.training.recipes.classification import PictureAugmentConfig
from perception.types import U8


class PictureBatch(NamedTuple):
    """One batch of whole pictures.

    Attributes:
        images: uint8 ``[N, 3, H, W]`` RGB, channels last in memory.
        labels: int64 ``[N]`` class ids; -1 where there is nothing.
        boxes: float32 ``[N, 4]`` xyxy in 0..1 of the picture; zeros where there is nothing, or nobody asks.
        names: the samples' names.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor
    names: list[str]


class Labelled(NamedTuple):
    """One picture to train on, uint8 ``[H, W, 3]`` BGR, as in `PictureBatch`."""

    image: U8
    label: int
    box: NDArray[np.float32]
    name: str


NO_BOX = np.zeros(4, np.float32)


class PictureBatches:
    """Batches of an epoch; see `perception.training.tasks.base.Batches`.

    Args:
        count: samples of an epoch.
        make: the sample of a number, with its random changes drawn from the generator.
        batch: samples in a batch; a last batch that would be short is dropped, unless it is the only one.
        seed: of all randomness.
        rank, world_size: this process among those that share each epoch.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int, np.random.Generator], Labelled],
        batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.count = count
        self.make = make
        self.batch = min(batch, max(count // world_size, 1))
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return self.count // (self.batch * self.world_size)

    def epoch(self, epoch: int) -> Iterator[PictureBatch]:
        """Make the batches of ``epoch``."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.count)

        def made(i: int) -> PictureBatch:
            turn = i * self.world_size + self.rank
            rng = np.random.default_rng((self.seed, epoch, turn))
            samples = [self.make(int(k), rng) for k in order[turn * self.batch : (turn + 1) * self.batch]]
            images = np.stack([sample.image for sample in samples])[..., ::-1]
            return PictureBatch(
                torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2),
                torch.tensor([sample.label for sample in samples], dtype=torch.int64),
                torch.from_numpy(np.stack([sample.box for sample in samples])),
                [sample.name for sample in samples],
            )

        return prefetch(made, len(self))


class PictureAugmenter:
    """Random changes of whole pictures; every draw comes from the generator that the caller gives.

    Args:
        config: what is changed.
        crop: (width, height) of the result; a smaller one than the pictures is cut out at a random place.
    """

    def __init__(self, config: PictureAugmentConfig, crop: tuple[int, int]) -> None:
        self.config = config
        self.crop = crop

    def __call__(
        self, image: U8, rng: np.random.Generator, box: NDArray[np.float32] = NO_BOX
    ) -> tuple[U8, NDArray[np.float32]]:
        """Change ``image``, uint8 ``[h, w, 3]``; return it and its moved ``box`` (xyxy in 0..1), clipped to it."""
        config, (width, height) = self.config, self.crop
        slack = np.array([image.shape[1] - width, image.shape[0] - height])
        shift = rng.integers(0, slack + 1).astype(np.float64) if slack.any() else np.zeros(2)
        moved = config.shift > 0 or config.rotate > 0 or config.scale != (1.0, 1.0)
        flip = config.flip > 0 and rng.random() < config.flip
        low, high = box.astype(np.float64).reshape(2, 2) * image.shape[1::-1]
        if moved:
            matrix = self._matrix(image, shift, rng)
            # centres of pixels are whole numbers there
            four = np.array([[low[0], high[0], low[0], high[0]], [low[1], low[1], high[1], high[1]]]) - 0.5
            placed = matrix[:, :2] @ four + matrix[:, 2:] + 0.5
            low, high = placed.min(1), placed.max(1)
            image = cv2.warpAffine(
                image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
                borderValue=BORDER_BGR,
            ).astype(np.uint8, copy=False)  # fmt: skip
        elif slack.any():
            x, y = int(shift[0]), int(shift[1])
            low, high = low - shift, high - shift
            image = image[y : y + height, x : x + width]
        place = np.concatenate((low, high)) / [width, height, width, height]
        if flip:
            image = image[:, ::-1]
            place = place[[2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
        if config.color:
            image = shift_colors(np.ascontiguousarray(image), config.color, rng)
        return image, np.clip(place, 0, 1).astype(np.float32)

    def _matrix(self, image: U8, shift: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """2x3 from picture to result (centres of pixels at whole numbers), turned and zoomed around the middle."""
        config = self.config
        angle = rng.uniform(-config.rotate, config.rotate)
        zoom = float(np.exp(rng.uniform(*np.log(config.scale))))
        centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
        matrix: NDArray[np.float64] = cv2.getRotationMatrix2D(centre, angle, zoom).astype(np.float64)
        matrix[:, 2] += rng.uniform(-config.shift, config.shift, 2) - shift
        return matrix
