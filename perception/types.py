"""The words of the house: what flows from a source through a model into sinks.

Only NumPy is imported here; everything heavier is imported by the method that needs it.
Coordinates are in pixels of the upright frame, x to the right, y down, with the origin at the
top left corner of the top left pixel: the frame covers ``[0, W] x [0, H]``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox
    from perception.postprocess.panoptic import Panoptic

U8: TypeAlias = NDArray[np.uint8]
F32: TypeAlias = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Planes:
    """An 8-bit planar YUV 4:2:0 picture: what decoders give and encoders take.

    Kept beside (or instead of) BGR because both conversions cost more than all drawing does.

    Attributes:
        y: uint8 ``[H, W]`` luma; rows may be padded, pixels in a row are adjacent.
        u: uint8 ``[(H + 1) // 2, (W + 1) // 2]`` blue difference.
        v: uint8 ``[(H + 1) // 2, (W + 1) // 2]`` red difference.
        matrix: coefficients of the conversion to RGB, ITU-R BT.601 or BT.709.
        full_range: luma in 0..255 (JPEG) and not 16..235 (video).
        buffer: uint8 ``[H * 3 // 2, W]``, the contiguous I420 memory behind the planes, if there is one.
    """

    y: U8
    u: U8
    v: U8
    matrix: Literal["bt601", "bt709"] = "bt601"
    full_range: bool = False
    buffer: U8 | None = None

    @property
    def width(self) -> int:
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        return int(self.y.shape[0])

    def to_bgr(self) -> U8:
        """The picture as uint8 ``[H, W, 3]`` BGR, C-contiguous, a new array."""
        from perception.picture.letterbox import planes_to_bgr

        return planes_to_bgr(self)


Picture: TypeAlias = "U8 | Planes"
"""A picture to show or to encode: uint8 ``[H, W, 3]`` BGR, or planes."""


class Frame:
    """One picture of a source, upright, with the time at which the source shows it.

    At least one of ``image`` and ``planes`` is given; ``image`` is made from the planes when it is first asked for.

    Attributes:
        index: number of the frame in its source, from 0, counting frames skipped by ``--every``.
        time: seconds from the source's own clock (its PTS), not ``index / fps``.
        source: the URI it came from.
        pts: presentation time stamp in units of ``time_base``, as in the source, or None.
        time_base: seconds per ``pts`` unit, or None.
        planes: the picture as YUV 4:2:0, where the decoder gave that, else None. Never write into them.
        arrived: ``time.monotonic()`` when the frame was taken from the source; latency is measured from here.
        duration: seconds for which the source shows the frame, or None where that is not told.
    """

    __slots__ = ("index", "time", "source", "pts", "time_base", "planes", "arrived", "duration", "_image")

    def __init__(
        self,
        image: U8 | None = None,
        *,
        index: int = 0,
        time: float = 0.0,
        source: str = "",
        pts: int | None = None,
        time_base: Fraction | None = None,
        planes: Planes | None = None,
        arrived: float = 0.0,
        duration: float | None = None,
    ) -> None:
        if image is None and planes is None:
            raise ValueError("a Frame needs an image or planes")
        self.index = index
        self.time = time
        self.source = source
        self.pts = pts
        self.time_base = time_base
        self.planes = planes
        self.arrived = arrived
        self.duration = duration
        self._image = image

    @property
    def image(self) -> U8:
        """uint8 ``[H, W, 3]`` BGR, C-contiguous. Shared by all who hold the frame: never write into it."""
        if self._image is None:
            assert self.planes is not None
            self._image = self.planes.to_bgr()
        return self._image

    @property
    def has_image(self) -> bool:
        """Whether BGR is at hand without a conversion."""
        return self._image is not None

    @property
    def width(self) -> int:
        return self.planes.width if self._image is None and self.planes is not None else int(self.image.shape[1])

    @property
    def height(self) -> int:
        return self.planes.height if self._image is None and self.planes is not None else int(self.image.shape[0])

    def __repr__(self) -> str:
        return f"Frame({self.width}x{self.height}, index={self.index}, time={self.time:.3f}, source={self.source!r})"


@dataclass(slots=True, eq=False)
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
        """The detections that ``keep`` picks, a boolean ``[N]`` or indices."""
        tracks = None if self.track_ids is None else self.track_ids[keep]
        return Detections(self.boxes[keep], self.scores[keep], self.class_ids[keep], tracks)


class ClassMap:
    """Segmentation of one frame: a class for each pixel, made when asked for.

    It comes from low-resolution logits, or from a mask that an engine made already (on a GPU).

    Attributes:
        logits: float32 ``[C, h, w]``, C-contiguous, as the network gave them (its own stride); None for a ready mask.
        labels: uint8 ``[h, w]``, a ready mask that covers the network's input, as logits would; else None.
        classes: number of classes C.
        letterbox: how the frame was fitted into the network's input.
        ignored: class ids that are never drawn nor counted as shown (a background, say).
    """

    __slots__ = ("logits", "labels", "classes", "letterbox", "ignored", "_mask", "_shares")

    def __init__(self, logits: F32, letterbox: Letterbox, ignored: tuple[int, ...] = ()) -> None:
        self.logits: F32 | None = logits
        self.labels: U8 | None = None
        self.classes = int(logits.shape[0])
        self.letterbox = letterbox
        self.ignored = ignored
        self._mask: U8 | None = None
        self._shares: F32 | None = None

    @classmethod
    def from_labels(cls, labels: U8, classes: int, letterbox: Letterbox, ignored: tuple[int, ...] = ()) -> ClassMap:
        """A class map of a ready mask, uint8 ``[h, w]`` of ids below ``classes``, over the network's input."""
        made = cls(np.empty((classes, 0, 0), np.float32), letterbox, ignored)
        made.logits, made.labels = None, labels
        return made

    @property
    def mask(self) -> U8:
        """uint8 ``[H, W]`` of class ids at frame size.

        Bilinear upsampling of the logits, then argmax; of a ready mask, the nearest pixel.
        """
        if self._mask is None:
            if self.labels is not None:
                from perception.postprocess.masks import to_frame

                self._mask = to_frame(self.labels, self.letterbox)
            else:
                from perception.postprocess.segmentation import class_mask

                assert self.logits is not None
                self._mask = class_mask(self.logits, self.letterbox)
        return self._mask

    @property
    def shares(self) -> F32:
        """float32 ``[C]``: the part of the frame's pixels that each class has, in 0..1; sums to 1."""
        if self._shares is None:
            from perception.postprocess.segmentation import class_shares, counts_to_shares

            if self.logits is not None:
                self._shares = class_shares(self.logits, self.letterbox)
            else:
                self._shares = counts_to_shares(np.bincount(self.mask.ravel(), minlength=self.classes))
        return self._shares


@dataclass(slots=True, eq=False)
class Prediction:
    """What is known of one frame.

    Attributes:
        frame: the frame it is about.
        detections: boxes, or None where the model has no detection head.
        class_map: a class for each pixel, or None where the model has no segmentation head.
        labels: whole-image classes as ``(class id, probability)``, most likely first, or None.
        timings: milliseconds spent on this frame, by stage (``resize``, ``infer``, ``postprocess``, ``draw``).
        picture: the annotated picture, where something asked for it. Sinks read it and never write into it.
        panoptic: things and stuff as segments, where `perception.stages.panoptic.PanopticStage` ran, else None.
    """

    frame: Frame
    detections: Detections | None = None
    class_map: ClassMap | None = None
    labels: list[tuple[int, float]] | None = None
    timings: dict[str, float] = field(default_factory=dict)
    picture: Picture | None = None
    panoptic: Panoptic | None = None


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source before its first frame.

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
"""A pure step on predictions, called in frame order: tracker, zone counter, class filter."""
