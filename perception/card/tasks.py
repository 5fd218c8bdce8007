"""What a model does, as its card says it: classes of pixels, boxes, classes of the whole picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from perception.common.calibration import ScoreCalibration, UnknownScale
from perception.common.palette import class_colors
from perception.common.strict import Strict

UNKNOWN = "unknown"
"""Name of pixels that are of no class."""

Channel = Annotated[int, Field(ge=0, le=255)]


class ClassInfo(Strict):
    """One class: its name and its colour (RGB, 0..255). In a card a name alone will do; the colour is then chosen."""

    name: str = Field(min_length=1)
    color: tuple[Channel, Channel, Channel]


class _Task(Strict):
    classes: list[ClassInfo] = Field(min_length=1, max_length=1000)

    @field_validator("classes", mode="before")
    @classmethod
    def _color_plain_names(cls, classes: Any) -> Any:
        """Accept classes that are given by name alone; each gets a colour that no other class has."""
        if not isinstance(classes, list) or len(classes) > 1000:
            return classes
        given = [c.get("color") for c in classes if isinstance(c, dict)]
        taken = {tuple(c) for c in given if isinstance(c, (list, tuple)) and all(isinstance(v, int) for v in c)}
        colors = iter(class_colors(sum(isinstance(c, str) for c in classes), taken))
        return [{"name": c, "color": next(colors)} if isinstance(c, str) else c for c in classes]

    @field_validator("classes")
    @classmethod
    def _names_are_unique(cls, classes: list[ClassInfo]) -> list[ClassInfo]:
        names = [c.name for c in classes]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"class names must be unique; repeated: {', '.join(twice)}")
        return classes

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.classes]


class _ColoredTask(_Task):
    @field_validator("classes")
    @classmethod
    def _colors_are_unique(cls, classes: list[ClassInfo]) -> list[ClassInfo]:
        seen: dict[tuple[int, int, int], str] = {}
        for c in classes:
            if c.color in seen:
                raise ValueError(f"colour {c.color} is used by both {seen[c.color]} and {c.name}")
            seen[c.color] = c.name
        return classes


class SegmentationTask(_ColoredTask):
    """A class for each pixel.

    Attributes:
        output: graph output, float32 ``[N, C, h, w]`` logits at the network's own stride.
        classes: C classes, in the order of the logits' channels; at most 255.
        ignored: class ids that are never drawn (a background).
        unknown: how pixels are told of which the network is not sure; None where that was not measured.
    """

    output: str = "class_logits"
    classes: list[ClassInfo] = Field(min_length=1, max_length=255)
    ignored: list[int] = Field(default=[])
    unknown: UnknownScale | None = None

    @model_validator(mode="after")
    def _unknown_is_no_class(self) -> SegmentationTask:
        if self.unknown is not None and self.unknown.id != len(self.classes):
            raise ValueError(f"the id of unknown must be {len(self.classes)}, after those of the classes")
        if self.unknown is not None and UNKNOWN in self.names:
            raise ValueError(f"a class is called {UNKNOWN!r}, as pixels of no class are")
        return self

    @model_validator(mode="after")
    def _ignored_exist(self) -> SegmentationTask:
        wrong = [i for i in self.ignored if not 0 <= i < len(self.classes)]
        if wrong:
            raise ValueError(f"ignored ids {wrong} are not among the {len(self.classes)} classes")
        return self


class TrackingSettings(Strict):
    """How boxes become tracks. Scores mean something else in each model: ``eval tracking --calibrate`` finds these.

    Attributes:
        high_score: boxes of at least this score are matched first.
        low_score: boxes of less are not looked at.
        start_score: a box of at least this score may begin a track.
        sure_score: a box of at least this score makes its track a confirmed one at once.
        overlap: least overlap of a track's guess and a box of high score.
        low_overlap: the same, of low score.
        lost_overlap: least overlap of where a track was last seen and a box of high score that is left over; 1: none.
        new_overlap: least overlap of a track that is not confirmed and a box.
        confirm_s: a track that has been seen for so many seconds is confirmed.
        patience_s: seconds that a track which is not confirmed may be unseen.
        memory_s: seconds that a confirmed track may be unseen and found again.
        jitter: how far edges of boxes are off, as part of the box's sides (standard deviation).
    """

    high_score: float = Field(default=0.5, ge=0, le=1)
    low_score: float = Field(default=0.25, ge=0, le=1)
    start_score: float = Field(default=0.3, ge=0, le=1)
    sure_score: float = Field(default=0.6, ge=0, le=1)
    overlap: float = Field(default=0.3, ge=0, le=1)
    low_overlap: float = Field(default=0.4, ge=0, le=1)
    lost_overlap: float = Field(default=0.05, ge=0, le=1)
    new_overlap: float = Field(default=0.3, ge=0, le=1)
    confirm_s: float = Field(default=0.1, ge=0, le=10)
    patience_s: float = Field(default=0.1, ge=0, le=10)
    memory_s: float = Field(default=1.0, ge=0, le=60)
    jitter: float = Field(default=0.04, gt=0, le=0.5)

    @classmethod
    def around(cls, score: float) -> TrackingSettings:
        """Return settings for a model whose boxes are usually taken from a score on: its threshold."""
        return cls(
            low_score=0.75 * score, start_score=score, high_score=score + 0.2 * (1 - score),
            sure_score=score + 0.4 * (1 - score),
        )  # fmt: skip

    def with_scores(self, moved: Callable[[float], float]) -> TrackingSettings:
        """Return the same settings for scores that were ``moved``: a function that rises, of a score in 0..1."""
        names = ("high_score", "low_score", "start_score", "sure_score")
        return self.model_copy(update={name: round(moved(getattr(self, name)), 4) for name in names})


class DetectionTask(_ColoredTask):
    """Boxes.

    Attributes:
        boxes: graph output, float32 ``[N, K, 4]`` xyxy in input pixels.
        scores: graph output, float32 ``[N, K, C]`` in 0..1.
        classes: C classes, in the order of the scores' last axis.
        calibration: makes those scores chances; None leaves them as they are.
        score_threshold: least score of a detection, calibrated, unless the user sets one.
        iou_threshold: boxes of a class that overlap more are suppressed.
        max_detections: at most this many boxes a frame.
        class_agnostic: boxes of other classes that overlap more are suppressed too.
        vote_iou: what is kept becomes the weighted mean of the boxes that overlap it at least so much, those below
            the score threshold included, see `perception.postprocess.detection.decode`; None keeps it as it is.
        tracking: how its boxes become tracks; None: by its ``score_threshold``, see `TrackingSettings.around`.
    """

    boxes: str = "boxes"
    scores: str = "scores"
    calibration: ScoreCalibration | None = None
    score_threshold: float = Field(0.3, ge=0, le=1)
    iou_threshold: float = Field(0.6, ge=0, le=1)
    max_detections: int = Field(300, ge=1)
    class_agnostic: bool = False
    vote_iou: float | None = Field(default=None, ge=0, le=1)
    tracking: TrackingSettings | None = None

    def tracking_settings(self, score: float | None = None) -> TrackingSettings:
        """How boxes become tracks.

        Args:
            score: least score of a box that begins a track, in place of the settings' own.
        """
        settings = self.tracking or TrackingSettings.around(self.score_threshold)
        if score is None:
            return settings
        changes = {
            "start_score": score,
            "sure_score": max(settings.sure_score, score),
            "low_score": min(settings.low_score, score),
        }
        return settings.model_copy(update=changes)


class ClassificationTask(_Task):
    """A class for the whole image; ``output`` is float32 ``[N, C]`` probabilities."""

    output: str = "probabilities"
