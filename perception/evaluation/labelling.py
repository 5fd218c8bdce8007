"""What the ids in label files and in a model's masks stand for, in the classes that are evaluated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perception.card import SegmentationTask
from perception.evaluation.classes import match_classes
from perception.evaluation.metrics import NO_CLASS
from perception.types import U8

Color = tuple[int, int, int]

OTHER = "(none of these)"
"""Where masks say a class that is not evaluated, or none."""


@dataclass(frozen=True, eq=False)
class Labelling:
    """Evaluated classes, and the ids that stand for them.

    Attributes:
        names: of the classes, those that are not evaluated included.
        colors: RGB, one for each.
        ignored: classes of ``names`` that are not evaluated.
        of_labels: uint8 ``[256]``, class by the id in a label file; `NO_CLASS` where a pixel counts for nothing.
        of_masks: uint8 ``[256]``, class by the id in a mask of the model.
        left_out: classes that are labelled and that the model lacks.
    """

    names: list[str]
    colors: list[Color]
    ignored: tuple[int, ...]
    of_labels: U8
    of_masks: U8
    left_out: tuple[str, ...] = ()

    @property
    def evaluated(self) -> dict[int, str]:
        """Names of the classes that may have an IoU, by class."""
        return {i: name for i, name in enumerate(self.names) if name != OTHER}


def own_labelling(task: SegmentationTask, ignore: Collection[int], unknown: bool = False) -> Labelling:
    """Labels hold the model's own ids.

    Args:
        task: of the model's card.
        ignore: ids of labels whose pixels count for nothing.
        unknown: masks may say that a pixel is of no class.
    """
    count = len(task.classes)
    ids = np.full(256, NO_CLASS, np.uint8)
    ids[:count] = np.arange(count)
    ids[list(ignore)] = NO_CLASS
    masks = np.full(256, count, np.uint8)
    masks[:count] = np.arange(count)
    names, colors = task.names, [c.color for c in task.classes]
    ignored = tuple(i for i in ignore if i < count)
    if unknown:
        return Labelling([*names, OTHER], [*colors, (0, 0, 0)], (*ignored, count), ids, masks)
    return Labelling(names, colors, ignored, ids, masks)


def matched_labelling(
    task: SegmentationTask, labels: Mapping[int, str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> Labelling:
    """Match classes that are labelled by name with the model's; see `match_classes`.

    Args:
        task: of the model's card.
        labels: name of the class by the id in the label files, of the classes that are evaluated.
        synonyms: for labelled classes the model's names; those that the model lacks are passed over.

    Raises:
        UsageError: no class in common.
    """
    wanted = {name: [n for n in of_model if n in task.names] for name, of_model in (synonyms or {}).items()}
    match = match_classes(task.names, list(dict.fromkeys(labels.values())), wanted)
    count = len(match.names)
    of_labels = np.full(256, NO_CLASS, np.uint8)
    for key, name in labels.items():
        of_labels[key] = match.of_data.get(name, NO_CLASS)
    of_masks = np.full(256, count, np.uint8)
    of_masks[list(match.of_model)] = list(match.of_model.values())
    colors = [task.classes[next(m for m, n in match.of_model.items() if n == k)].color for k in range(count)]
    return Labelling([*match.names, OTHER], [*colors, (0, 0, 0)], (count,), of_labels, of_masks, tuple(match.left_out))
