"""The steps between a model's predictions and the sinks, for one source: its stages in order, then its picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from perception.card import ModelCard
from perception.errors import PerceptionError, StageError, UsageError
from perception.stages.factories import StageFactory, name_of_stage
from perception.types import Picture, Prediction, Stage


class StageChain:
    """Applies stages to the predictions of one source, and renders them.

    Every way of a frame goes through one: files and jobs by way of `perception.pipeline.run`, live streams and single
    pictures result by result. Stages may have state (a tracker, a counter), so each source, and each set of options
    that a live source is seen with, has a chain of its own; factories among the stages make theirs for it. One thread
    at a time uses a chain, and gives it predictions in frame order.

    Args:
        card: of the model that predicts.
        stages: in order; what `perception.stages.factories.find_stage` gives, or stages themselves.
        annotator: draws a prediction; needed where `render` is called.

    Raises:
        UsageError: a factory refuses the model, or makes something else than a stage.

    Example:
        >>> chain = StageChain(model.card, [find_stage("panoptic")], Annotator(model.card, view="panoptic"))
        >>> prediction = chain.apply(model.interpret(inference))  # for each result, in order
        >>> rendered = chain.render(prediction)  # only where somebody looks
        >>> jpeg = encode_jpeg(rendered.picture)
    """

    def __init__(
        self,
        card: ModelCard,
        stages: Sequence[Stage | StageFactory] = (),
        annotator: Callable[[Prediction], Picture] | None = None,
    ) -> None:
        made = [stage(card) if isinstance(stage, StageFactory) else stage for stage in stages]
        names = [stage.name if isinstance(stage, StageFactory) else name_of_stage(stage) for stage in stages]
        self._stages: list[tuple[str, Stage]] = list(zip(names, made, strict=True))
        self._card = card
        self._annotator = annotator

    def apply(self, prediction: Prediction) -> Prediction:
        """Apply all stages to a prediction.

        Raises:
            StageError: a stage failed; it is named, with the frame.
            PerceptionError: what a stage says of itself, or what it returns cannot be drawn or written.
        """
        for name, stage in self._stages:
            index = prediction.frame.index
            try:
                result = stage(prediction)
            except PerceptionError:
                raise  # explains itself
            except Exception as error:
                what = f"the stage {name} failed on frame {index}: {type(error).__name__}: {error}"
                raise StageError(what, prediction.frame.source or None) from error
            if not isinstance(result, Prediction):
                raise UsageError(f"the stage {name} must return a prediction, not {type(result).__name__}")
            self._check_classes(name, result)
            prediction = result
        return prediction

    def _check_classes(self, name: str, prediction: Prediction) -> None:
        """Refuse classes without a name here, where the stage is known, and not in whatever draws or writes them."""
        detections, task = prediction.detections, self._card.detection
        if detections is None or not len(detections):
            return
        most = 0 if task is None else len(task.classes)
        least, greatest = int(detections.class_ids.min()), int(detections.class_ids.max())
        if least < 0 or greatest >= most:
            raise UsageError(
                f"the stage {name} gave a box of class {greatest if least >= 0 else least}; "
                f"{self._card.name} has {most} classes of boxes"
            )

    def render(self, prediction: Prediction) -> Prediction:
        """Draw a prediction's annotated picture; return it with the milliseconds that drawing took.

        Raises:
            UsageError: the chain has no annotator, or the prediction lacks what it draws.
        """
        if self._annotator is None:
            raise UsageError("there is nothing to draw with: give an annotator")
        started = time.perf_counter()
        picture = self._annotator(prediction)
        spent = 1000 * (time.perf_counter() - started)
        return replace(prediction, picture=picture, timings={**prediction.timings, "draw": spent})
