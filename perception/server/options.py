"""What a client may set for what it gets: thresholds, classes, drawing. The same words on every route."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from perception.card import ModelCard
from perception.drawing.annotator import Annotator
from perception.model import Model
from perception.postprocess.post_processing import DetectionOptions

Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A number in 0..1."""


Name = Annotated[str, Field(max_length=200)]


def _split(value: Any) -> Any:
    """A query holds one text, or several; JSON holds a list."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


class Options(BaseModel):
    """Thresholds, classes and drawing.

    Attributes:
        score: least score of a box; None: the card's.
        iou: boxes that overlap more are one; None: the card's.
        max_detections: most boxes a frame; None: the card's.
        classes: only these, by name; None: all.
        opacity: of the class colours.
        masks, boxes, labels, legend: whether they are drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: Unit | None = None
    iou: Unit | None = None
    max_detections: int | None = Field(default=None, ge=1, le=1000)
    classes: Annotated[tuple[Name, ...] | None, Field(max_length=1000), BeforeValidator(_split)] = None
    opacity: Unit = 0.5
    masks: bool = True
    boxes: bool = True
    labels: bool = True
    legend: bool = True

    def applied_to(self, model: Model) -> Model:
        """A model that shares the engine of ``model`` and keeps to these options.

        Raises:
            UsageError: a class that the model has not.
        """
        options = DetectionOptions(
            score_threshold=self.score,
            iou_threshold=self.iou,
            max_detections=self.max_detections,
            classes=self.classes,
        )
        return model.with_options(options)

    def annotator(self, card: ModelCard) -> Annotator:
        """What draws as these options say.

        Raises:
            UsageError: a class that the model has not.
        """
        return Annotator(
            card,
            opacity=self.opacity,
            masks=self.masks,
            boxes=self.boxes,
            labels=self.labels,
            legend=self.legend,
            classes=self.classes,
        )
