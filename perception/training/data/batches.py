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

from perception.training.data.augment import Augmenter
from perception.training.data.boxes import BoxLabels
from perception.training.data.copy_paste import copy_paste
from perception.training.data.masks import Sample
from perception.training.data.sets import MaskSets, SampleSets

Made = TypeVar("Made")


def prefetch(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """Yield ``make(0)`` to ``make(count - 1)``; a thread makes the next while one is in use."""
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
    """One batch of pictures.

    Attributes:
        images: uint8 ``[N, 3, H, W]`` RGB, channels last in memory.
        labels: int64 ``[M, H, W]`` of the first M pictures; the others have boxes alone.
        boxes: N; None for a picture whose objects nobody labelled.
        names: the samples' names.
        known: bool ``[M, C]``: classes that a picture's labels decide between.
        weights: float32 ``[M]`` of a picture's pixels in the loss.
        distilled: bool ``[M]``: pictures whose masks are also learnt from the teacher.
    """

    images: Tensor
    labels: Tensor
    boxes: list[BoxLabels | None]
    names: list[str]
    known: Tensor
    weights: Tensor
    distilled: Tensor


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
        rank, world_size: this process among those that share each epoch; every one gets batches of its own.
        masks_alone: leave the pictures of ``boxed`` out of the batches; an epoch is as long as with them.
        steps: batches of an epoch, all processes together; None for one pass over ``boxed``, or over ``samples`` where
            there are none.
    """

    def __init__(
        self,
        samples: MaskSets,
        augmenter: Augmenter,
        batch: int,
        seed: int,
        boxed: SampleSets | None = None,
        boxed_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        masks_alone: bool = False,
        steps: int | None = None,
    ) -> None:
        self.samples = samples
        self.augmenter = augmenter
        self.batch = min(batch, max(len(samples) // world_size, 1))
        self.seed = seed
        self.boxed = boxed
        self.boxed_count = 0 if boxed is None else len(boxed)
        self.boxed_batch = min(boxed_batch, self.boxed_count // world_size)
        self.rank = rank
        self.world_size = world_size
        self.masks_alone = masks_alone
        self.steps = steps
        rules = augmenter.config.copy_paste
        self.donors = samples.donors(rules.classes) if rules is not None else np.zeros(0, np.int64)

    def __len__(self) -> int:
        if self.steps is not None:
            return max(self.steps // self.world_size, 1)
        if self.boxed_batch:
            return self.boxed_count // (self.boxed_batch * self.world_size)
        return len(self.samples) // (self.batch * self.world_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Make the batches of ``epoch``."""
        crop = self.augmenter.config.crop_at(epoch)
        order = self._mask_order(epoch)
        boxed_order = self._boxed_order(epoch)

        def make(i: int) -> Batch:
            turn = i * self.world_size + self.rank
            rows = order[turn * self.batch : (turn + 1) * self.batch]
            boxed_rows = boxed_order[turn * self.boxed_batch : (turn + 1) * self.boxed_batch]
            if self.masks_alone:
                boxed_rows = boxed_rows[:0]
            return self._make(epoch, rows, boxed_rows, crop)

        yield from prefetch(make, len(self))

    def _mask_order(self, epoch: int) -> NDArray[np.int64]:
        """Rows ``(index, round)`` of the pictures with masks."""
        count = len(self) * self.batch * self.world_size
        return self.samples.order(count, lambda part, r: np.random.default_rng((self.seed, epoch, part, r)))

    def _boxed_order(self, epoch: int) -> NDArray[np.int64]:
        """Rows ``(index, round)`` of the pictures with boxes alone."""
        if self.boxed is None:
            return np.zeros((0, 2), np.int64)
        count = len(self) * self.boxed_batch * self.world_size
        return self.boxed.order(count, lambda part, r: np.random.default_rng((self.seed, epoch, part, r, 1)))

    def _make(self, epoch: int, rows: NDArray[np.int64], boxed_rows: NDArray[np.int64], crop: tuple[int, int]) -> Batch:
        crops = []
        for index, r in rows.tolist():
            rng = np.random.default_rng((self.seed, epoch, index, r))
            crops.append(self.augmenter(self._copy_pasted(index, rng), crop, rng))
        labels = np.stack([c.labels for c in crops if c.labels is not None]).astype(np.int64)
        every = np.ones(self.samples.classes, np.bool_)
        known = np.stack([every if c.known is None else c.known for c in crops])
        weights = np.array([c.weight for c in crops], np.float32)
        distilled = np.array([c.distilled for c in crops])
        crops += [self._make_boxed(epoch, index, r, crop) for index, r in boxed_rows.tolist()]
        width, height = crop
        images = np.empty((len(crops), height, width, 3), np.uint8)
        for row, sample in enumerate(crops):
            cv2.cvtColor(sample.image, cv2.COLOR_BGR2RGB, dst=images[row])
        return Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),
            torch.from_numpy(labels),
            [c.boxes for c in crops],
            [c.name for c in crops],
            torch.from_numpy(known),
            torch.from_numpy(weights),
            torch.from_numpy(distilled),
        )

    def _copy_pasted(self, index: int, rng: np.random.Generator) -> Sample:
        """Paste things of another sample into this one, perhaps."""
        sample, rules = self.samples[index], self.augmenter.config.copy_paste
        if rules is None or not len(self.donors) or rng.random() >= rules.chance:
            return sample
        boxes_of = self.samples.boxes_of(index)
        if sample.known is not None or (sample.boxes is not None and boxes_of is None):
            return sample  # its labels could not say what was pasted
        donor = self.samples[int(self.donors[rng.integers(len(self.donors))])]
        return copy_paste(sample, donor, rules, rng, boxes_of)

    def _make_boxed(self, epoch: int, index: int, r: int, crop: tuple[int, int]) -> Sample:
        assert self.boxed is not None
        rules = self.augmenter.boxes
        rng = np.random.default_rng((self.seed, epoch, index, r, 1))
        sample = self.boxed[index]
        mosaics = rules.mosaic_until is None or epoch < rules.mosaic_until
        if mosaics and rng.random() < rules.mosaic:
            others = [self.boxed[int(i)] for i in rng.integers(self.boxed_count, size=3)]
            return self.augmenter.mosaic([sample, *others], crop, rng)
        return self.augmenter(sample, crop, rng)
