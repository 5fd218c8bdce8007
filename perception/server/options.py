"""Options of a client: thresholds, classes, drawing. The same words on every route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from perception.card import ModelCard
from perception.common.settings import split_names
from perception.drawing.annotator import Annotator
from perception.errors import UsageError
from perception.model import Model
from perception.pipeline import StageChain
from perception.postprocess.post_processing import DetectionOptions
from perception.stages.factories import StageFactory, find_stage
from perception.stages.panoptic import thing_classes
from perception.stages.track import track_factory, tracking_options
from perception.types import Stage

Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A number in 0..1."""


TRACK, SMOOTH = "track", "smooth"
OVER_TIME = (TRACK, SMOOTH)
"""Stages that say nothing of a single picture."""

Name = Annotated[str, Field(max_length=200)]


def _split(value: Any) -> Any:
    """The names in a row of them, see `split_names`; those of a list are taken as they are."""
    if not isinstance(value, str):
        return value
    try:
        return [name for name in split_names(value) if name]
    except UsageError as error:
        raise ValueError(error.message) from None


View = Literal["boxes", "panoptic"]


def views(card: ModelCard) -> list[View]:
    """The views that a model's results can be drawn in, the usual one first."""
    try:
        thing_classes(card)
    except UsageError:
        return ["boxes"]
    return ["boxes", "panoptic"]


class Options(BaseModel):
    """Thresholds, classes, tracking and drawing: what a client asks for, in JSON. See `QueryOptions` for a query.

    Attributes:
        score: least score of a box, with ``track`` of one that begins a track; None: the card's.
        iou: boxes that overlap more are one; None: the card's.
        max_detections: most boxes a frame; None: the card's.
        classes: only these, by name, as a list or as a row of names; None: all.
        unknown: part of the correct pixels that may become unknown, so that the network's guesses do; only for models
            that are calibrated, see `perception.postprocess.post_processing.DetectionOptions`.
        track: boxes are followed, each gets an identity that stays; of no effect on single pictures.
        smooth: masks are steadied in time, for models that have some; of no effect on single pictures.
        view: objects as boxes, or as outlines of their pixels, for models that have masks and boxes.
        opacity: of the class colours.
        masks, boxes, labels, legend, rules: whether they are drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: Unit | None = None
    iou: Unit | None = None
    max_detections: int | None = Field(default=None, ge=1, le=1000)
    classes: Annotated[tuple[Name, ...] | None, Field(max_length=1000), BeforeValidator(_split)] = None
    unknown: Unit = 0.0
    track: bool = False
    smooth: bool = False
    view: View = "boxes"
    opacity: Unit = 0.5
    masks: bool = True
    boxes: bool = True
    labels: bool = True
    legend: bool = True
    rules: bool = True

    def detection(self, card: ModelCard, stages: Sequence[StageFactory] = ()) -> DetectionOptions:
        """The part that decides how a network's outputs are interpreted; what says the same as the card is left out.

        Args:
            card: of the model.
            stages: of the operator; where one of them tracks, or these options do, boxes of low score are wanted, too.
        """
        asked = self._asked(card)
        return tracking_options(card, asked) if self.tracks(stages) else asked

    def tracks(self, stages: Sequence[StageFactory] = ()) -> bool:
        """True where boxes are tracked: by these options, or by one of the operator's stages."""
        return self.track or any(stage.name == TRACK for stage in stages)

    def smooths(self, stages: Sequence[StageFactory] = ()) -> bool:
        """True where masks are smoothed: by these options, or by one of the operator's stages."""
        return self.smooth or any(stage.name == SMOOTH for stage in stages)

    def interpretation(self, card: ModelCard, stages: Sequence[StageFactory] = ()) -> tuple[object, ...]:
        """What makes a prediction: options that are equal in this have the same ones, however they are drawn."""
        begins = self._asked(card).score_threshold if self.tracks(stages) else None
        return self.detection(card, stages), self.tracks(stages), begins, self.smooths(stages)

    def stages(self, card: ModelCard, stages: Sequence[StageFactory] = ()) -> list[StageFactory]:
        """The operator's stages; before them what these options ask for and they have not: tracking, smoothing."""
        track = track_factory(self._asked(card))
        names = [stage.name for stage in stages]
        before = [track] if self.track and TRACK not in names else []
        before += [find_stage(SMOOTH)] if self.smooth and SMOOTH not in names else []
        return [*before, *(track if stage.name == TRACK else stage for stage in stages)]

    def _asked(self, card: ModelCard) -> DetectionOptions:
        task, classes = card.detection, self.classes
        tasks = [t for t in (card.segmentation, card.detection, card.classification) if t is not None]
        if classes is not None and set(classes) == {name for t in tasks for name in t.names}:
            classes = None

        def own(value: Any, of_card: Any) -> Any:
            return None if task is None or value == of_card else value

        return DetectionOptions(
            score_threshold=own(self.score, task and task.score_threshold),
            iou_threshold=own(self.iou, task and task.iou_threshold),
            max_detections=own(self.max_detections, task and task.max_detections),
            classes=None if classes is None else tuple(sorted(set(classes))),
            unknown=self.unknown or None,
        )

    def applied_to(self, model: Model, stages: Sequence[StageFactory] = ()) -> Model:
        """A model that shares the engine of ``model`` and keeps to these options, for the operator's stages.

        Raises:
            UsageError: a class that the model has not.
        """
        return model.with_options(self.detection(model.card, stages))

    def view_stages(self, before: Sequence[Stage | StageFactory] = ()) -> list[StageFactory]:
        """The stages that the view needs, unless they are among those ``before`` it."""
        names = [stage.name for stage in before if isinstance(stage, StageFactory)]
        return [find_stage(self.view)] if self.view == "panoptic" and self.view not in names else []

    def chain(self, card: ModelCard, stages: Sequence[Stage | StageFactory] = ()) -> StageChain:
        """Make the chain of stages and drawing for one source: ``stages``, then what the view needs.

        Raises:
            UsageError: a class that the model has not, or a view or a stage that it is not made for.
        """
        return StageChain(card, [*stages, *self.view_stages(stages)], self.annotator(card))

    def annotator(self, card: ModelCard) -> Annotator:
        """Make an annotator that draws as these options say.

        Raises:
            UsageError: a class that the model has not, or a view that its results do not allow.
        """
        if self.view not in views(card):
            raise UsageError(f"the panoptic view needs a model of both masks and boxes; {card.name} is none")
        return Annotator(
            card,
            opacity=self.opacity,
            masks=self.masks,
            boxes=self.boxes,
            labels=self.labels,
            legend=self.legend,
            rules=self.rules,
            view=self.view,
            classes=self.classes,
        )


class QueryOptions(Options):
    """Options as the parameters of a query: ``classes=car,road&score=0.4``.

    In a query ``classes`` is a row of names, or several of them: ``classes=car&classes="tench, Tinca tinca"``.
    """

    @field_validator("classes", mode="before")
    @classmethod
    def _rows(cls, value: Any) -> Any:
        rows = value if isinstance(value, (list, tuple)) else [value]
        return [name for row in rows for name in _split(row)] if all(isinstance(row, str) for row in rows) else value

    def plain(self) -> Options:
        """These options without the query's own fields, equal to those of any other client who asks for the same."""
        return Options.model_validate({name: getattr(self, name) for name in Options.model_fields})
