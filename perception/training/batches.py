"""Training batches, made one ahead in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from perception.training.augment import Augmenter
from perception.training.boxes import BoxLabels
from perception.training.dataset import Sample, SegmentationFolder
from perception.training.paste import pasted

Made = TypeVar("Made")


def made_ahead(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """``make(0)`` to ``make(count - 1)``; a thread makes the next while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        ahead: Future[Made] | None = None
        for i in range(count):
            upcoming = pool.submit(make, i)
            if ahead is not None:
                yield ahead.result()
            ahead = upcoming
        if ahead is not None:
            yield ahead.result()


class Batch(NamedTuple):
    """Attributes:
    images: uint8 ``[N, 3, H, W]`` RGB, channels last in memory.
    labels: int64 ``[M, H, W]`` of the first M pictures; the others have boxes alone.
    boxes: N; None for a picture whose objects nobody labelled.
    names: the samples' names.
    """

    images: Tensor
    labels: Tensor
    boxes: list[BoxLabels | None]
    names: list[str]


class BatchMaker:
    """Batches of an epoch.

    What an epoch holds follows from ``(seed, epoch)`` alone, whatever ran before: a resumed run sees the very
    batches it would have seen. A last batch that would be short is dropped (unless it is the only one): batch
    norm dislikes it, and another order comes next epoch.

    Args:
        samples: pictures with masks.
        augmenter: makes crops of them.
        batch: pictures with masks in a batch.
        seed: of all randomness.
        boxed: pictures with boxes alone. If given, an epoch goes once through these, and through ``samples`` as
            often as it takes.
        boxed_batch: pictures of ``boxed`` in a batch.
        rank, ranks: this process among those that share each epoch; every one gets batches of its own.
        masks_alone: leave the pictures of ``boxed`` out of the batches; an epoch is as long as with them.
    """

    def __init__(
        self,
        samples: SegmentationFolder,
        augmenter: Augmenter,
        batch: int,
        seed: int,
        boxed: Dataset[Sample] | None = None,
        boxed_batch: int = 0,
        rank: int = 0,
        ranks: int = 1,
        masks_alone: bool = False,
    ) -> None:
        self.samples = samples
        self.augmenter = augmenter
        self.batch = min(batch, max(len(samples) // ranks, 1))
        self.seed = seed
        self.boxed = boxed
        self.boxed_count = 0 if boxed is None else len(boxed)  # type: ignore[arg-type]
        self.boxed_batch = min(boxed_batch, self.boxed_count // ranks)
        self.rank = rank
        self.ranks = ranks
        self.masks_alone = masks_alone

    def __len__(self) -> int:
        if self.boxed_batch:
            return self.boxed_count // (self.boxed_batch * self.ranks)
        return len(self.samples) // (self.batch * self.ranks)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of ``epoch``."""
        crop = self.augmenter.config.crop_at(epoch)
        order = self._mask_order(epoch)
        boxed_order = np.random.default_rng((self.seed, epoch, 0, 0, 1)).permutation(self.boxed_count)

        def make(i: int) -> Batch:
            turn = i * self.ranks + self.rank
            rows = order[turn * self.batch : (turn + 1) * self.batch]
            boxed_rows = boxed_order[turn * self.boxed_batch : (turn + 1) * self.boxed_batch]
            if self.masks_alone:
                boxed_rows = boxed_rows[:0]
            return self._make(epoch, rows, boxed_rows, crop)

        yield from made_ahead(make, len(self))

    def _mask_order(self, epoch: int) -> NDArray[np.int64]:
        """Rows ``(index, round)`` of the pictures with masks: one permutation after another."""
        count = len(self.samples)
        rounds = -(-len(self) * self.batch * self.ranks // count)
        orders = []
        for r in range(rounds):
            rng = np.random.default_rng((self.seed, epoch, r) if r else (self.seed, epoch))
            orders.append(np.stack((rng.permutation(count), np.full(count, r)), 1))
        return np.concatenate(orders)

    def _make(self, epoch: int, rows: NDArray[np.int64], boxed_rows: NDArray[np.int64], crop: tuple[int, int]) -> Batch:
        crops = []
        for index, r in rows.tolist():
            rng = np.random.default_rng((self.seed, epoch, index, r) if r else (self.seed, epoch, index))
            sample = self.samples[index]
            paste = self.augmenter.config.paste
            if paste is not None and rng.random() < paste.chance:
                donor = self.samples[int(rng.integers(len(self.samples)))]
                sample = pasted(sample, donor, paste, rng, self.samples.boxes_of)
            crops.append(self.augmenter(sample, crop, rng))
        labels = np.stack([c.labels for c in crops if c.labels is not None]).astype(np.int64)
        crops += [self._make_boxed(epoch, index, crop) for index in boxed_rows.tolist()]
        width, height = crop
        images = np.empty((len(crops), height, width, 3), np.uint8)
        for row, sample in enumerate(crops):
            cv2.cvtColor(sample.image, cv2.COLOR_BGR2RGB, dst=images[row])
        return Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),
            torch.from_numpy(labels),
            [c.boxes for c in crops],
            [c.name for c in crops],
        )

    def _make_boxed(self, epoch: int, index: int, crop: tuple[int, int]) -> Sample:
        assert self.boxed is not None
        rules = self.augmenter.boxes
        rng = np.random.default_rng((self.seed, epoch, index, 0, 1))
        sample = self.boxed[index]
        mosaics = rules.mosaic_until is None or epoch < rules.mosaic_until
        if mosaics and rng.random() < rules.mosaic:
            others = [self.boxed[int(i)] for i in rng.integers(self.boxed_count, size=3)]
            return self.augmenter.mosaic([sample, *others], crop, rng)
        return self.augmenter(sample, crop, rng)
