"""What is shown of a stream: what the network says of a frame, and where it has no time, what it said of one before.

Where a source asks for it, the frames that come while the network is at work get its newest results, moved with the
picture (see `perception.propagation`), so that overlays come as often as frames do, however slow the engine is. Boxes
go on as the picture moves until the network has seen a later frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perception.model import Inference
from perception.picture.small_luma import small_luma
from perception.server.streams.intake import Arrival, Intake
from perception.server.streams.results import Results
from perception.server.streams.views import Carried
from perception.types import U8, Frame

if TYPE_CHECKING:
    from perception.propagation.estimation import MotionEstimator
    from perception.propagation.motion import Motion

CHANGED = 0.4
"""Part of the picture that may be another than its motion explains: more is a cut. What comes into view has its first
results when the network has seen it; until then the rest of the picture is worth more than no picture."""

MOST_S = 1.0
"""Seconds of the source's clock after which what the network said is carried no further."""


class Propagation:
    """Publishes the frames of one stream, in order, each once. The stream's own thread uses it.

    Args:
        intake: that they come from; it is told of those that are not shown.
        results: where they are published.
    """

    def __init__(self, intake: Intake, results: Results) -> None:
        self._intake = intake
        self._results = results
        self._shown = -1
        self._key: Inference | None = None
        self._luma: tuple[U8, float] | None = None
        self._estimator: MotionEstimator | None = None

    def show(self, seen: Arrival | None, passing: Arrival | None, age_s: float) -> None:
        """Publish what `Intake.next` gives.

        Args:
            seen: a frame that the network has seen.
            passing: a later one that came while it was at work.
            age_s: frames that came longer ago are not shown.
        """
        if seen is not None and seen.inference is not None:
            self._keep(seen.inference)
            if not self._publish(seen.frame, seen.inference, None, age_s):
                self._intake.lost = True
                self._intake.missed(seen)
        if passing is not None:
            motion = self._motion(passing.frame)
            carried = None if motion is None else Carried(passing.frame, motion)
            if carried is None or self._key is None or not self._publish(passing.frame, self._key, carried, age_s):
                self._intake.missed(passing)

    def forget(self) -> None:
        """The stream is closed."""
        self._key = self._luma = None

    def _keep(self, inference: Inference) -> None:
        """Later frames get this, if frames are to get anything."""
        self._key, self._luma = inference if self._intake.carries else None, None
        if self._key is not None and self._estimator is None:
            from perception.propagation.estimation import MotionEstimator  # compiles its kernels

            self._estimator = MotionEstimator(goes_on=True, changed=CHANGED)

    def _publish(self, frame: Frame, inference: Inference, carried: Carried | None, age_s: float) -> bool:
        """Publish a result unless its frame, or a later one, was shown before, or it is too old."""
        if frame.index <= self._shown or not self._results.publish(inference, age_s, carried):
            return False
        self._shown = frame.index
        return True

    def _motion(self, frame: Frame) -> Motion | None:
        """How the picture has moved since the frame that the network has seen; None where that cannot be told."""
        key = self._key
        if key is None or self._estimator is None or not 0 <= frame.time - key.frame.time <= MOST_S:
            return None
        if self._luma is None:
            self._luma = small_luma(key.frame.picture)
        luma, scale = small_luma(frame.picture)
        if self._luma[1] != scale:
            return None
        return self._estimator.motion(luma, self._luma[0], scale, frame.index - key.frame.index)
