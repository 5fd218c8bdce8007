"""Tracking as a step of the pipeline: boxes get identities that stay."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from perception.card import DetectionTask, ModelCard
from perception.common.jit import compile_ahead
from perception.errors import UsageError
from perception.postprocess.post_processing import DetectionOptions
from perception.stages.factories import StageFactory
from perception.types import Detections, Prediction


class TrackStage:
    """Replaces the boxes of each prediction by those of confirmed tracks, with ``track_ids``, and adds ``trails``.

    Boxes, scores and classes are steadied along a track. Each source needs a stage of its own.

    Args:
        card: of a model that makes boxes; how they become tracks is in its ``detection.tracking``.
        score: least score of a box that begins a track; None: the card's.
        camera: tell from the pictures how the camera moves, and take the tracks along; at a cut they end.

    Raises:
        UsageError: the model makes no boxes.

    Example:
        >>> options = tracking_options(model.card)  # boxes of low score help to keep a track
        >>> perception.run(source, model.with_options(options), stages=[TrackStage(model.card)], sinks=sinks)
    """

    def __init__(self, card: ModelCard, score: float | None = None, *, camera: bool = True) -> None:
        task = _detection(card)
        from perception.tracking.camera import CameraMotion
        from perception.tracking.tracker import Tracker  # compiles its kernels, which no frame should wait for

        self._camera = CameraMotion() if camera else None
        self._boxes = Detections.empty().boxes
        self._tracker = Tracker(task.tracking_settings(score), len(task.classes))

    def __call__(self, prediction: Prediction) -> Prediction:
        """Track the boxes of the next frame.

        Raises:
            UsageError: the prediction has none.
        """
        if prediction.detections is None:
            raise UsageError("tracking needs boxes; this prediction has none")
        started = time.perf_counter()
        frame = prediction.frame
        motion = None if self._camera is None else self._camera.update(frame.picture, self._boxes)
        if self._camera is not None and self._camera.cut:
            self._tracker.forget()
        tracked = self._tracker.update(prediction.detections, frame.time, (frame.width, frame.height), motion)
        self._boxes = tracked.boxes
        trails = self._tracker.trails
        timings = {**prediction.timings, "track": 1e3 * (time.perf_counter() - started)}
        return replace(prediction, detections=tracked, trails=trails, timings=timings)


class StillStage:
    """Stands for a `TrackStage` where the source is one picture: leaves out the boxes that only a track would want.

    Args:
        card: of a model that makes boxes.
        options: what boxes are asked for.

    Raises:
        UsageError: the model makes no boxes.
    """

    def __init__(self, card: ModelCard, options: DetectionOptions) -> None:
        task = _detection(card)
        score = options.score_threshold
        wanted = score if isinstance(score, Mapping) else dict.fromkeys(task.names, score)
        scores = [wanted.get(name) for name in task.names]
        self._least = np.array([task.score_threshold if one is None else one for one in scores], np.float32)

    def __call__(self, prediction: Prediction) -> Prediction:
        """Return the prediction that there would be without tracking."""
        found = prediction.detections
        if found is None:
            return prediction
        return replace(prediction, detections=found.select(found.scores >= self._least[found.class_ids]))


def _detection(card: ModelCard) -> DetectionTask:
    if card.detection is None:
        raise UsageError(f"tracking needs boxes; {card.name} does {' and '.join(card.tasks)} only: try -m street")
    return card.detection


def tracking_options(card: ModelCard, options: DetectionOptions | None = None) -> DetectionOptions:
    """Return options under which a model gives its tracker what it wants: boxes of low score, too.

    Args:
        card: of the model.
        options: everything but the score threshold stays as it is there.
    """
    options = options or DetectionOptions()
    if card.detection is None:
        return options
    settings = card.detection.tracking_settings(_least(options))
    return replace(options, score_threshold=settings.low_score)


def track_factory(options: DetectionOptions | None = None) -> StageFactory:
    """Return what makes a `TrackStage` for each source, whose tracks begin with boxes that ``options`` would give."""
    compile_ahead(["perception.tracking.tracker"])
    import perception.tracking.tracker  # noqa: F401  # compiles its kernels, before a source is opened

    asked = options or DetectionOptions()
    score = _least(asked)
    return StageFactory("track", lambda card: TrackStage(card, score), lambda card: StillStage(card, asked))


def _least(options: DetectionOptions) -> float | None:
    """The score threshold that is asked for; the least of several."""
    score = options.score_threshold
    return score if score is None or isinstance(score, (int, float)) else min(score.values(), default=None)
