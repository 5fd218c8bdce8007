"""Several sets of pictures as one: which pictures an epoch takes, and how often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perception.training.data.boxes import BoxLabels
from perception.training.data.masks import Sample, SegmentationFolder


class SampleSet(Protocol):
    """Pictures of one source, in a fixed order."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class SampleSets:
    """Sets one after the other.

    Args:
        sets: at least one.
        shares: how often each set's pictures are taken: of all in an epoch, the part ``share / sum``. None for a
            set's size.

    Attributes:
        shares: float64 ``[S]``, in 0..1, of each set.
    """

    def __init__(self, sets: Sequence[SampleSet], shares: Sequence[float | None] | None = None) -> None:
        self._sets = list(sets)
        self.sizes = np.array([len(part) for part in sets])
        wanted = [None] * len(self._sets) if shares is None else shares
        every = np.array([size if share is None else share for size, share in zip(self.sizes, wanted, strict=True)])
        self.shares: NDArray[np.float64] = every / every.sum()
        self._starts = np.concatenate(([0], np.cumsum(self.sizes)))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        number = self._set_of(index)
        return self._sets[number][index - int(self._starts[number])]

    def order(self, count: int, rng: Callable[[int, int], np.random.Generator]) -> NDArray[np.int64]:
        """Rows ``(index, round)`` of the ``count`` pictures of an epoch.

        Each set gives its share, rounded so that the whole is ``count``; its pictures come one permutation after
        another (``round`` counts these), and the sets are evenly mixed.

        Args:
            count: pictures in the epoch.
            rng: the generator of a set's round.
        """
        exact = self.shares * count
        counts = np.floor(exact).astype(np.int64)
        for number in np.argsort(counts - exact, kind="stable")[: count - int(counts.sum())]:
            counts[number] += 1
        rows, places = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
        for number, (size, taken) in enumerate(zip(self.sizes.tolist(), counts.tolist(), strict=True)):
            for r in range(-(-taken // size)):
                drawn = rng(number, r).permutation(size)[: taken - r * size] + self._starts[number]
                rows.append(np.stack((drawn, np.full(len(drawn), r)), 1))
            places.append((np.arange(taken) + 0.5) / max(taken, 1))
        return np.concatenate(rows)[np.argsort(np.concatenate(places), kind="stable")]

    def _set_of(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, "right")) - 1


class MaskSets(SampleSets):
    """Sets of pictures with masks.

    Args, attributes: as of `SampleSets`.
    """

    def __init__(self, folders: Sequence[SegmentationFolder], shares: Sequence[float | None] | None = None) -> None:
        super().__init__(folders, shares)
        self.folders = list(folders)
        self.classes = self.folders[0].classes

    def boxes_of(self, index: int) -> Callable[[NDArray[np.uint8]], BoxLabels] | None:
        """Return the function that makes the boxes of that sample from its labels, if there is one."""
        return self.folders[self._set_of(index)].boxes_of

    def donors(self, classes: Sequence[int]) -> NDArray[np.int64]:
        """Indices of the samples of sets that label all of ``classes``."""
        parts = zip(self.folders, self._starts[:-1].tolist(), self.sizes.tolist(), strict=True)
        chosen = [np.arange(at, at + size) for folder, at, size in parts if folder.labelled[list(classes)].all()]
        return np.concatenate([np.zeros(0, np.int64), *chosen])

    def class_pixels(self) -> NDArray[np.float64]:
        """Pixels of each class ``[C]`` as an epoch shows them: of each set in proportion to its share."""
        each = [folder.class_pixels() / len(folder) for folder in self.folders]
        return np.asarray(np.tensordot(self.shares, np.array(each), 1) * len(self))
