"""The words of the package: what flows from a source through a model into sinks.

Only NumPy is imported here; everything heavier is imported by the method that needs it.
Coordinates are in pixels of the upright frame, x to the right, y down, with the origin at the
top left corner of the top left pixel: the frame covers ``[0, W] x [0, H]``.

Nothing here is changed by those who read it: whoever makes a frame or a prediction gives it all that it needs, once;
who wants another one makes one (`Frame.at`, `dataclasses.replace`).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perception.events.event import Event
from perception.picture.frame import Frame
from perception.picture.planes import F32, U8, Picture, Planes

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox

__all__ = [
    "F32",
    "U8",
    "ClassMap",
    "Detections",
    "Event",
    "Frame",
    "Panoptic",
    "Picture",
    "Planes",
    "Prediction",
    "Reading",
    "Segment",
    "SourceInfo",
    "Stage",
    "counts_to_shares",
]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one frame as a struct of arrays, sorted by score, highest first.

    Attributes:
        boxes: float32 ``[N, 4]`` xyxy in frame pixels, inside the frame.
        scores: float32 ``[N]`` in 0..1.
        class_ids: int32 ``[N]``, indices into the card's detection classes.
        track_ids: int64 ``[N]`` where a tracker ran, else None.
    """

    boxes: F32
    scores: F32
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,) or self.class_ids.shape != (n,):
            raise ValueError(
                f"Detections need boxes [N, 4], scores [N], class_ids [N]; got {self.boxes.shape}, "
                f"{self.scores.shape}, {self.class_ids.shape}"
            )
        if self.track_ids is not None and self.track_ids.shape != (n,):
            raise ValueError(f"track_ids must be [{n}], got {self.track_ids.shape}")

    @classmethod
    def empty(cls) -> Detections:
        """No box at all."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Detections:
        """Select the detections that ``keep`` picks, a boolean ``[N]`` or indices."""
        tracks = None if self.track_ids is None else self.track_ids[keep]
        return Detections(self.boxes[keep], self.scores[keep], self.class_ids[keep], tracks)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the boxes with the ids of their classes, without the frame; None without boxes."""
        from perception.picture.sketch import sketch_alone, to_png

        image = sketch_alone(self.boxes, self.scores, self.class_ids, self.track_ids)
        return None if image is None else to_png(image)

    def to_supervision(self, names: Sequence[str] | None = None) -> Any:
        """Return it as ``supervision.Detections``, in the same order; identities become ``tracker_id``.

        Args:
            names: of the classes, for ``data["class_name"]``.

        Raises:
            UsageError: supervision is not installed.
        """
        from perception.common.distribution import require

        require("supervision", "supervision", "this conversion")
        import supervision

        data: dict[str, Any] = (
            {} if names is None else {"class_name": np.array([names[i] for i in self.class_ids], dtype=str)}
        )
        tracks = None if self.track_ids is None else self.track_ids.copy()
        return supervision.Detections(
            self.boxes.copy(), None, self.scores.copy(), self.class_ids.astype(np.int64), tracks, data
        )

    @classmethod
    def from_supervision(cls, found: Any) -> Detections:
        """Make it of ``supervision.Detections``: sorted by score; a score that is not given is 1, a class 0.

        Masks and ``data`` are left out. Identities stay.
        """
        n = len(found.xyxy)
        scores = np.ones(n, np.float32) if found.confidence is None else np.asarray(found.confidence, np.float32)
        ids = np.zeros(n, np.int32) if found.class_id is None else np.asarray(found.class_id, np.int32)
        tracks = None if found.tracker_id is None else np.asarray(found.tracker_id, np.int64)
        boxes = np.asarray(found.xyxy, np.float32).reshape(-1, 4)
        return cls(boxes, scores, ids, tracks).select(np.argsort(-scores, kind="stable"))


class ClassMap(ABC):
    """Segmentation of one frame: a class for each pixel, made when asked for, and kept.

    Safe to use from several threads.

    `perception.postprocess.class_maps` has the two kinds: of logits, and of a mask that an engine made.

    Attributes:
        classes: number of classes C.
        letterbox: how the frame was fitted into the network's input.
        unknown: id of pixels whose class the model is not sure of, after those of the classes: C; None where every
            pixel is of a class.
        ignored: ids that are never drawn nor counted as shown: of a background, say, and ``unknown``.
    """

    def __init__(
        self, classes: int, letterbox: Letterbox, ignored: tuple[int, ...] = (), *, unknown: int | None = None
    ) -> None:
        self.classes = classes
        self.letterbox = letterbox
        self.unknown = unknown
        self.ignored = ignored if unknown is None else (*ignored, unknown)
        self._lock = threading.RLock()
        self._mask: U8 | None = None
        self._shares: F32 | None = None

    @property
    def mask(self) -> U8:
        """uint8 ``[H, W]`` of class ids at frame size."""
        with self._lock:
            if self._mask is None:
                self._mask = self.resized(self.letterbox.frame_width, self.letterbox.frame_height)
            return self._mask

    @property
    def shares(self) -> F32:
        """float32 ``[C]``: the part of the frame's pixels that each class has, in 0..1; sums to 1.

        With ``unknown``, ``[C + 1]``.
        """
        with self._lock:
            if self._shares is None:
                self._shares = counts_to_shares(self._count())
            return self._shares

    def overlay(
        self, picture: Picture, palette_bgr: U8, opacity: float, out: Picture, hidden: Sequence[int] = ()
    ) -> None:
        """Blend the class colours over a picture, in one pass, from which the shares are known, too.

        Luma is blended for each pixel, a chroma sample with the mean of the (up to) four pixels it serves.

        Args:
            picture: of the frame's size; only read.
            palette_bgr: uint8 ``[C, 3]`` BGR.
            opacity: 0 (picture) to 1 (colour), rounded to a multiple of 1/64.
            out: of the same kind and size, to be written; may be ``picture``. BGR must be C-contiguous.
            hidden: class ids that leave the picture as it is, beside those that are ignored.

        Raises:
            ValueError: sizes, types, opacity or the number of colours do not fit.
        """
        counts = self._blend(picture, palette_bgr, opacity, out, sorted({*self.ignored, *hidden}))
        with self._lock:
            if self._shares is None:
                self._shares = counts_to_shares(counts)

    def to_supervision(self, names: Sequence[str] | None = None) -> Any:
        """Return it as ``supervision.Detections``: a mask, and the box around it, for each class that has pixels.

        Classes that are ignored, and pixels of none, are left out.

        Args:
            names: of the classes, for ``data["class_name"]``.

        Raises:
            UsageError: supervision is not installed.
        """
        ids = [i for i in np.unique(self.mask).tolist() if i not in self.ignored]
        masks = np.array([self.mask == i for i in ids], bool).reshape(-1, *self.mask.shape)
        boxes = np.zeros((len(ids), 4), np.float32)
        for box, mask in zip(boxes, masks, strict=True):
            ys, xs = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            box[:] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
        found = Detections(boxes, np.ones(len(ids), np.float32), np.array(ids, np.int32)).to_supervision(names)
        found.mask = masks
        return found

    @abstractmethod
    def resized(self, width: int, height: int) -> U8:
        """Return the classes of the frame as if it had that size, uint8 ``[height, width]``, a new array."""

    @abstractmethod
    def _count(self) -> NDArray[np.int64]:
        """int64 ``[C]``, with ``unknown`` ``[C + 1]``: the frame's pixels of each class."""

    @abstractmethod
    def _blend(
        self, picture: Picture, palette_bgr: U8, opacity: float, out: Picture, hidden: Sequence[int]
    ) -> NDArray[np.int64]:
        """`overlay` of all classes but the ``hidden`` ones; gives what `_count` does."""


def counts_to_shares(counts: NDArray[np.int64]) -> F32:
    """Pixel counts ``[C]`` as parts of their sum, float32."""
    return (counts / max(int(counts.sum()), 1)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Segment:
    """One thing, or the stuff of one class, in a panoptic view.

    Attributes:
        id: number in the map, from 1.
        class_id: of the class map.
        score: of the box that it is from; None of stuff, and of things that no box was found around.
        area: pixels.
        box: xyxy of its pixels, edges of pixels.
    """

    id: int
    class_id: int
    score: float | None
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Panoptic:
    """A frame as segments that do not overlap.

    Attributes:
        ids: int32 ``[H, W]``: the segment of each pixel, 0 for none.
        segments: those of at least one pixel.
        things: class ids whose instances are told apart; the others are stuff.
    """

    ids: NDArray[np.int32]
    segments: list[Segment]
    things: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a rule says at a frame: numbers for programs, and what is drawn of it.

    Attributes:
        name, kind: of the rule.
        points: float32 ``[K, 2]`` x, y in 0..1 of the frame: the ends of a line, the corners of a zone; empty for none.
        numbers: plain data for JSON, see `docs/outputs.md`.
        text: a few words beside it in the picture.
        active: somebody is there, has just crossed, or the condition holds.
    """

    name: str
    kind: Literal["line", "zone", "condition"]
    points: F32
    numbers: Mapping[str, Any]
    text: str = ""
    active: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """A model's results for one frame. Steps that know more make another one, with `dataclasses.replace`.

    Attributes:
        frame: the frame it is about.
        detections: boxes, or None where the model has no detection head.
        class_map: a class for each pixel, or None where the model has no segmentation head.
        labels: whole-image classes as ``(class id, probability)``, most likely first, or None.
        timings: milliseconds spent on this frame, by step (``resize``, ``infer``, ``postprocess``, ``draw``).
        picture: the annotated picture, where the prediction was rendered. Sinks read it and never write into it.
        panoptic: things and stuff as segments, where `perception.stages.panoptic.PanopticStage` ran, else None.
        trails: by track id the way that a box has come, float32 ``[K, 2]`` of its bottom centre in frame pixels, oldest
            first, where `perception.stages.track.TrackStage` ran.
        readings: what each rule says at this frame, where `perception.stages.rules.RulesStage` ran, else None.
        events: what rules noticed in this frame, in the order in which it happened. A rule appends to those before it.
        propagated: the network has not seen this frame; its results are an earlier one's, moved with the picture.
    """

    frame: Frame
    detections: Detections | None = None
    class_map: ClassMap | None = None
    labels: list[tuple[int, float]] | None = None
    timings: dict[str, float] = field(default_factory=dict)
    picture: Picture | None = None
    panoptic: Panoptic | None = None
    trails: Mapping[int, F32] = field(default_factory=dict)
    readings: Sequence[Reading] | None = None
    events: tuple[Event, ...] = ()
    propagated: bool = False

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the rendered picture, or else the frame with classes and boxes by their ids."""
        from perception.picture.conversions import to_bgr
        from perception.picture.sketch import sketch_boxes, sketch_classes, to_png

        if self.picture is not None:
            return to_png(to_bgr(self.picture))
        image = self.frame.image
        found = self.class_map
        image = image.copy() if found is None else sketch_classes(image, found.mask, found.ignored)
        if self.detections is not None:
            boxes = self.detections
            sketch_boxes(image, boxes.boxes, boxes.scores, boxes.class_ids, boxes.track_ids)
        return to_png(image)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Facts about a source that are known before its first frame.

    Attributes:
        uri: what was opened, credentials removed.
        kind: which kind of source it is.
        width, height: size of the upright frames in pixels.
        fps: average frames per second, or None where unknown (a folder of images, some streams).
        time_base: seconds per unit of the frames' ``pts``, or None.
        frame_count: frames that will come, after ``start``, ``duration``, ``every`` and ``max_frames``; an
            estimate from the container where ``exact_count`` is False; None where unknown.
        live: frames come by themselves and are dropped when nobody takes them.
        path: the local file, where it is one: the place audio is copied from.
        start, duration: the part of the file that is read, in seconds, if not all of it.
        every: only each ``every``-th frame is read.
    """

    uri: str
    kind: Literal["file", "images", "camera", "stream", "stdin", "synthetic"]
    width: int
    height: int
    fps: Fraction | None = None
    time_base: Fraction | None = None
    frame_count: int | None = None
    exact_count: bool = False
    live: bool = False
    path: str | None = None
    start: float = 0.0
    duration: float | None = None
    every: int = 1


Stage: TypeAlias = Callable[[Prediction], Prediction]
"""A step on the predictions of one source, called in frame order: tracker, zone counter, class filter."""
