"""Instances of things out of class masks and boxes, as a step of the pipeline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from perception.card import ModelCard
from perception.common.settings import nearest
from perception.errors import UsageError
from perception.types import Prediction

MIN_AREA = 30
"""Pixels. What is smaller is a stray corner of a mask more often than a thing."""


class PanopticStage:
    """Gives each prediction its ``panoptic``: things split along boxes, and stuff.

    Args:
        card: of a model that gives both masks and boxes.
        things: by name of a class of pixels, the names of the boxes that show it. None takes the card's, and where
            that says nothing the names that both have.
        min_area: segments of fewer pixels are left out.

    Attributes:
        things: the same by class ids.

    Raises:
        UsageError: the model has no masks or no boxes, a name is not its, or no class would be a thing.

    Example:
        >>> stage = PanopticStage(model.card, {"car": ["car", "bus", "truck"]})
        >>> perception.run(source, model, stages=[stage], sinks=[perception.open_sink("out", kind="panoptic")])
    """

    def __init__(
        self, card: ModelCard, things: Mapping[str, Sequence[str]] | None = None, min_area: int = MIN_AREA
    ) -> None:
        self.things = thing_classes(card, things)
        self.min_area = min_area
        from perception.postprocess.panoptic import panoptic  # compiles its kernels, which no frame should wait for

        self._split = panoptic

    def __call__(self, prediction: Prediction) -> Prediction:
        """Add the segments to a prediction.

        Raises:
            UsageError: it has no class map or no detections.
        """
        if prediction.class_map is None or prediction.detections is None:
            raise UsageError("segments need both masks and boxes; this prediction lacks one of them")
        started = time.perf_counter()
        class_map = prediction.class_map
        view = self._split(class_map.mask, prediction.detections, self.things, class_map.ignored, self.min_area)
        spent = 1e3 * (time.perf_counter() - started)
        return replace(prediction, panoptic=view, timings={**prediction.timings, "panoptic": spent})


def thing_classes(card: ModelCard, things: Mapping[str, Sequence[str]] | None = None) -> dict[int, list[int]]:
    """Class ids of boxes by the class id of the pixels that they show.

    Args:
        card: of the model.
        things: see `PanopticStage`.

    Raises:
        UsageError: see `PanopticStage`.
    """
    segments, boxes = card.segmentation, card.detection
    if segments is None or boxes is None:
        has = " and ".join(card.tasks)
        raise UsageError(f"the panoptic view needs masks and boxes; {card.name} does {has} only: try the model street")
    if things is None:
        things = card.things or {name: [name] for name in segments.names if name in boxes.names}
    if not things:
        raise UsageError(
            f"{card.name} has no name for both pixels and boxes: say which boxes belong to which pixels: "
            f"`things={segments.names[0]}={boxes.names[0]}`"
        )
    for name, kinds in things.items():
        if name not in segments.names:
            raise UsageError(f"{card.name} has no pixels of {name!r}{nearest(name, segments.names)}")
        for kind in kinds:
            if kind not in boxes.names:
                raise UsageError(f"{card.name} has no boxes of {kind!r}{nearest(kind, boxes.names)}")
    return {segments.names.index(name): [boxes.names.index(k) for k in kinds] for name, kinds in things.items()}
