"""Training batches, made one ahead in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from perception.training.augment import Augmenter
from perception.training.dataset import SegmentationFolder


class Batch(NamedTuple):
    """Attributes:
    images: uint8 ``[N, 3, H, W]`` RGB, channels last in memory.
    labels: int64 ``[N, H, W]``.
    names: the samples' names.
    """

    images: Tensor
    labels: Tensor
    names: list[str]


class BatchMaker:
    """Batches of an epoch.

    What an epoch holds follows from ``(seed, epoch)`` alone, whatever ran before: a resumed run sees the very
    batches it would have seen. A last batch that would be short is dropped (unless it is the only one): batch
    norm dislikes it, and another order comes next epoch.
    """

    def __init__(self, samples: SegmentationFolder, augmenter: Augmenter, batch: int, seed: int) -> None:
        self.samples = samples
        self.augmenter = augmenter
        self.batch = min(batch, len(samples))
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples) // self.batch

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of ``epoch``."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples))
        crop = self.augmenter.config.crop_at(epoch)
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            ahead: Future[Batch] | None = None
            for i in range(len(self)):
                indices = order[i * self.batch : (i + 1) * self.batch]
                upcoming = pool.submit(self._make, epoch, indices, crop)
                if ahead is not None:
                    yield ahead.result()
                ahead = upcoming
            if ahead is not None:
                yield ahead.result()

    def _make(self, epoch: int, indices: np.ndarray, crop: tuple[int, int]) -> Batch:
        width, height = crop
        images = np.empty((len(indices), height, width, 3), np.uint8)
        labels = np.empty((len(indices), height, width), np.uint8)
        names = []
        for row, index in enumerate(indices):
            sample = self.samples[int(index)]
            rng = np.random.default_rng((self.seed, epoch, int(index)))
            image, labels[row] = self.augmenter(sample, crop, rng)
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=images[row])
            names.append(sample.name)
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.int64)), names)
