"""A street drawn in code: a demo without a file, and tests with exact truth.

The camera stands still. Cars, people and bicyclists pass; where each is depends only on the seed and the frame's
number, so any frame and its truth can be had again, and nothing accumulates however long it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from threading import Event
from urllib.parse import parse_qsl

import numpy as np

from perception.common.bounds import Bounds
from perception.common.settings import nearest
from perception.errors import SourceError, UsageError
from perception.sources.base import Selection, Source
from perception.sources.latest import LatestReader
from perception.sources.synthetic import sprites
from perception.sources.synthetic.sprites import Color, Sprite
from perception.sources.synthetic.street import PAVEMENT_FAR, PAVEMENT_NEAR, POLE, ROAD_FAR, ROAD_NEAR, draw_street
from perception.sources.uri import exact
from perception.types import U8, Detections, Frame, SourceInfo

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
"""CamVid's eleven classes, in the order of their ids."""

CAR, PEDESTRIAN, BICYCLIST = 8, 9, 10
MIN_VISIBLE = 0.1
"""Objects of which less than this part of their pixels shows have no box."""

_PARAMETERS = {"size": "640x360", "fps": "30", "frames": "300", "seed": "0", "live": "0"}
_COATS: tuple[Color, ...] = ((60, 60, 190), (170, 110, 50), (70, 140, 80), (60, 170, 220), (150, 70, 130), (90, 90, 90))
_CARS: tuple[Color, ...] = (
    (60, 50, 185),
    (190, 120, 50),
    (225, 225, 225),
    (70, 70, 72),
    (50, 160, 200),
    (120, 130, 60),
)


@dataclass(frozen=True, slots=True, eq=False)
class _Mover:
    """Something that crosses the scene again and again. Lengths in pixels, speed in pixels a second."""

    class_id: int
    sprites: list[Sprite]
    poses_per_second: float
    floor: int
    offset: float
    speed: float
    period: float

    def at(self, seconds: float) -> tuple[Sprite, int, int, int]:
        """Return the sprite, its top left x and y, and how often it has crossed before."""
        passes, along = divmod(self.offset + abs(self.speed) * seconds, self.period)
        sprite = self.sprites[int(seconds * self.poses_per_second) % len(self.sprites)]
        height, width = sprite.mask.shape
        x = round(along) - width if self.speed > 0 else round(self.period - along) - width
        return sprite, x, self.floor - height, int(passes)


class SyntheticSource(Source):
    """The drawn street.

    Args:
        size_wh: width and height of the frames.
        fps: frames per second of its clock.
        frames: how many; 0 for no end.
        seed: what the street looks like and who passes. Equal seeds give equal frames.
        live: frames come at their time, and are dropped when nobody takes them.
        selection: which frames.
        uri: what it is called.
        bounds: what it is held to.

    Raises:
        SourceError: it is too large, or there is no frame after ``selection.start``.
    """

    def __init__(
        self,
        size_wh: tuple[int, int] = (640, 360),
        fps: Fraction = Fraction(30),
        frames: int = 300,
        seed: int = 0,
        live: bool = False,
        selection: Selection | None = None,
        uri: str = "synthetic:",
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__()
        bounds = bounds or Bounds()
        bounds.check_size(*size_wh, uri)
        self._select = selection = selection or Selection()
        self._fps = fps
        self._total = frames or None
        self._size = width, height = size_wh
        self._scale = height / 360
        self._background, self._mask = draw_street(width, height, seed, lambda: bounds.check(uri))
        self._post = sprites.lamp_post(self._scale)
        self._post_x = round(width * 0.72)
        # Far ones first, so that near ones cover them; None is the lamp post on the near pavement.
        self._movers = self._populate(np.random.default_rng([seed, 1]))
        bounds.check(uri)
        count = selection.count(self._total, fps)
        if count == 0:
            raise SourceError(f"it ends before second {selection.start:g}, where it should begin", uri)
        self.info = SourceInfo(
            uri=uri,
            kind="synthetic",
            width=width,
            height=height,
            fps=fps,
            time_base=1 / fps,
            frame_count=None if live else count,
            exact_count=not live and count is not None,
            live=live,
            start=selection.start,
            duration=selection.duration,
            every=selection.every,
        )
        self._reader = LatestReader(self._paced, uri, bounds) if live else None

    @classmethod
    def from_uri(cls, uri: str, selection: Selection | None = None, bounds: Bounds | None = None) -> SyntheticSource:
        """Create a source from ``synthetic:?size=WxH&fps=N&frames=N&seed=N&live=1``; what is left out has its default.

        Raises:
            UsageError: an unknown parameter, or a value out of its range.
        """
        query = uri.partition(":")[2].lstrip("/").lstrip("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        for name in given:
            if name not in _PARAMETERS:
                raise UsageError(f"unknown parameter {name!r}{nearest(name, _PARAMETERS)}", uri)
        values = _PARAMETERS | given
        try:
            width, height = (int(side) for side in values["size"].lower().split("x"))
            fps = exact(values["fps"])
            frames, seed, live = int(values["frames"]), int(values["seed"]), int(values["live"])
        except (ValueError, ZeroDivisionError):
            raise UsageError("write size like 640x360; fps, frames, seed and live are numbers", uri) from None
        if not (1 <= width <= 8192 and 1 <= height <= 8192):
            raise UsageError("size must be from 1x1 to 8192x8192", uri)
        if not 0 < fps <= 1000 or frames < 0 or seed < 0 or live not in (0, 1):
            raise UsageError("fps must be in 0..1000, frames and seed at least 0, live 0 or 1", uri)
        return cls((width, height), fps, frames, seed, bool(live), selection, uri, bounds)

    def _populate(self, random: np.random.Generator) -> list[_Mover]:
        movers: list[_Mover] = []
        scale, width = self._scale, self._size[0]

        def lane(
            class_id: int, poses: list[list[Sprite]], floor: float, speed: float, gap: float, jitter: float, pps: float
        ) -> None:
            """Spread the sprites along a lane; all at one speed where they must not run into each other."""
            longest = max(s[0].mask.shape[1] for s in poses)
            period = max(width + longest, len(poses) * (longest + gap * scale))
            for i, sprite in enumerate(poses):
                # Everything faces right as drawn.
                facing = sprite if speed > 0 else [s.mirrored for s in sprite]
                offset = (i + random.uniform(0, 0.4)) * period / len(poses)
                pace = speed * scale * (1 + random.uniform(-jitter, jitter))
                movers.append(
                    _Mover(
                        class_id, facing, pps, round(floor * scale) + int(random.integers(0, 2)), offset, pace, period
                    )
                )

        def people(count: int, size: float) -> list[list[Sprite]]:
            skins: tuple[Color, ...] = ((150, 185, 225), (110, 145, 190), (70, 95, 130))
            return [
                sprites.pedestrian(
                    scale * size,
                    _COATS[random.integers(len(_COATS))],
                    ((90, 70, 50), (50, 50, 55), (120, 100, 80))[random.integers(3)],
                    skins[random.integers(3)],
                )
                for _ in range(count)
            ]

        def cars(count: int, size: float) -> list[list[Sprite]]:
            colors = random.permutation(len(_CARS))
            return [sprites.car(scale * size, _CARS[colors[i]], bool(random.random() < 0.25)) for i in range(count)]

        def bicyclists(count: int, size: float) -> list[list[Sprite]]:
            return [
                sprites.bicyclist(scale * size, _COATS[random.integers(len(_COATS))], (170, 60, 40))
                for _ in range(count)
            ]

        lane(PEDESTRIAN, people(3, 0.72), PAVEMENT_FAR[1] - 6, -16, 60, 0.25, 4)
        lane(PEDESTRIAN, people(2, 0.76), PAVEMENT_FAR[1] - 2, 14, 60, 0.25, 4)
        lane(CAR, cars(3, 0.95), ROAD_FAR[1] - 12, -random.uniform(80, 110), 90, 0, 1)
        lane(BICYCLIST, bicyclists(1, 0.95), ROAD_FAR[1] + 2, -random.uniform(40, 55), 120, 0, 3)
        lane(CAR, cars(3, 1.3), ROAD_NEAR[1] - 10, random.uniform(110, 150), 110, 0, 1)
        lane(BICYCLIST, bicyclists(1, 1.25), ROAD_NEAR[1] + 2, random.uniform(45, 60), 120, 0, 3)
        lane(PEDESTRIAN, people(2, 1.3), PAVEMENT_NEAR[1] - 8, 20, 120, 0.25, 4)
        return movers

    def image(self, index: int) -> U8:
        """Frame ``index`` as uint8 ``[H, W, 3]`` BGR, a new array."""
        image = self._background.copy()
        seconds = float(index / self._fps)
        for mover in self._movers:
            sprite, x, y, _ = mover.at(seconds)
            sprite.stamp(image, x, y)
        self._post.stamp(image, self._post_x, self._post_y)
        return image

    @property
    def _post_y(self) -> int:
        return round((PAVEMENT_NEAR[0] + 8) * self._scale) - self._post.mask.shape[0]

    def truth(self, index: int) -> tuple[Detections, U8]:
        """Return the truth of frame ``index``.

        Returns:
            The cars, pedestrians and bicyclists, and uint8 ``[H, W]`` of class ids (``CLASSES``). Boxes enclose an
            object's visible pixels exactly (the right and bottom edges are one past the last pixel); objects of
            which less than ``MIN_VISIBLE`` shows have none. ``class_ids`` are CamVid's, scores are 1, and
            ``track_ids`` name an object for as long as it crosses the scene.
        """
        seconds = float(index / self._fps)
        mask = self._mask.copy()
        owner = np.zeros(mask.shape, np.uint8)
        placed = [mover.at(seconds) for mover in self._movers]
        for number, (mover, (sprite, x, y, _)) in enumerate(zip(self._movers, placed, strict=True), 1):
            sprite.stamp(mask, x, y, mover.class_id)
            sprite.stamp(owner, x, y, number)
        self._post.stamp(mask, self._post_x, self._post_y, POLE)
        self._post.stamp(owner, self._post_x, self._post_y, 0)

        boxes, class_ids, tracks = [], [], []
        for number, (mover, (sprite, x, y, passes)) in enumerate(zip(self._movers, placed, strict=True), 1):
            height, width = sprite.mask.shape
            left, top = max(0, x), max(0, y)
            rows, columns = np.nonzero(owner[top : max(0, y + height), left : max(0, x + width)] == number)
            if len(rows) <= MIN_VISIBLE * np.count_nonzero(sprite.mask):
                continue
            boxes.append((left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1))
            class_ids.append(mover.class_id)
            tracks.append(passes * len(self._movers) + number)
        detections = Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.ones(len(boxes), np.float32),
            np.array(class_ids, np.int32),
            np.array(tracks, np.int64),
        )
        return detections, mask

    def _indices(self) -> Iterator[int]:
        wanted = self._select
        first = -(-Fraction(wanted.start).limit_denominator(10**6) * self._fps // 1)
        index = first = int(first)
        while (self._total is None or index < self._total) and float(index / self._fps) < wanted.end - 1e-6:
            yield index
            index += wanted.every

    def _frame(self, index: int, first: int) -> Frame:
        return Frame(
            self.image(index),
            index=index - first,
            time=float(index / self._fps),
            source=self.info.uri,
            pts=index,
            time_base=1 / self._fps,
            arrived=time.monotonic(),
        )

    def _paced(self, stopping: Event) -> Iterator[Frame]:
        began = time.monotonic()
        first: int | None = None
        for index in self._indices():
            first = index if first is None else first
            if stopping.wait(max(0.0, began + float((index - first) / self._fps) - time.monotonic())):
                return
            yield self._frame(index, first)

    def _read(self) -> Iterator[Frame]:
        given = 0
        first: int | None = None
        if self._reader is not None:
            while given != self._select.max_frames and (frame := self._reader.take()) is not None:
                given += 1
                yield frame
            return
        for index in self._indices():
            if given == self._select.max_frames or self._closing:
                return
            first = index if first is None else first
            given += 1
            yield self._frame(index, first)

    @property
    def dropped(self) -> int:
        return 0 if self._reader is None else self._reader.dropped

    def _interrupt(self) -> None:
        if self._reader is not None:
            self._reader.stop()

    def _release(self) -> None:
        if self._reader is not None:
            self._reader.join()
