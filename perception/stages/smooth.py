"""Masks steadied in time, as a step of the pipeline."""

from __future__ import annotations

import time
from dataclasses import replace

from perception.card import ModelCard
from perception.errors import UsageError
from perception.postprocess.smoothing import USUAL_S, LogitsSmoother
from perception.stages.factories import StageFactory
from perception.types import Prediction


class SmoothStage:
    """Averages each prediction's class map with those before it, along the way that the picture moves.

    Each source needs a stage of its own. Boxes stay as they are; see `perception.postprocess.smoothing`.

    Args:
        card: of a model that makes masks.
        seconds: time constant, of the source's clock.

    Raises:
        UsageError: the model makes no masks, or the time constant is not positive.

    Example:
        >>> perception.run(source, model, stages=[SmoothStage(model.card)], sinks=sinks)
    """

    def __init__(self, card: ModelCard, seconds: float = USUAL_S) -> None:
        if card.segmentation is None:
            raise UsageError(f"there are no masks to smooth; {card.name} does {' and '.join(card.tasks)} only")
        try:
            self._smoother = LogitsSmoother(seconds)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def __call__(self, prediction: Prediction) -> Prediction:
        """Steady the class map of the next frame.

        Raises:
            UsageError: it has none, or one without logits.
        """
        from perception.postprocess.class_maps import LogitsClassMap

        class_map, frame = prediction.class_map, prediction.frame
        if class_map is None:
            raise UsageError("smoothing needs masks; this prediction has none")
        if not isinstance(class_map, LogitsClassMap):
            raise UsageError("this class map is a mask, and masks without logits cannot be smoothed")
        started = time.perf_counter()
        logits = self._smoother.update(class_map.logits, class_map.letterbox, frame.picture, frame.time)
        timings = {**prediction.timings, "smooth": 1e3 * (time.perf_counter() - started)}
        return replace(prediction, class_map=class_map.of(logits), timings=timings)


def smooth_factory(seconds: float = USUAL_S) -> StageFactory:
    """Return what makes a `SmoothStage` for each source."""
    return StageFactory("smooth", lambda card: SmoothStage(card, seconds))
