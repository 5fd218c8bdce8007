"""One picture of a source and the time at which the source shows it."""

from __future__ import annotations

from fractions import Fraction
from typing import NoReturn

from perception.picture.planes import U8, Picture, Planes


class _Pixels:
    """The picture of one frame, and of those that are made of it with other times."""

    __slots__ = ("image", "planes")

    def __init__(self, image: U8 | None, planes: Planes | None) -> None:
        self.image = image
        self.planes = planes

    def bgr(self) -> U8:
        if self.image is None:
            from perception.picture.conversions import planes_to_bgr

            assert self.planes is not None
            self.image = planes_to_bgr(self.planes)
        return self.image


class Frame:
    """One picture of a source, upright, with the time at which the source shows it. It does not change: see `at`.

    At least one of ``image`` and ``planes`` is given; ``image`` is made from the planes when it is first asked for.

    Attributes:
        index: number of the frame in its source, from 0, counting frames skipped by ``every``.
        time: seconds from the source's own clock (its PTS), not ``index / fps``.
        source: the URI it came from.
        pts: presentation time stamp in units of ``time_base``, as in the source, or None.
        time_base: seconds per ``pts`` unit, or None.
        arrived: ``time.monotonic()`` when the frame was taken from the source; latency is measured from here.
        duration: seconds for which the source shows the frame, or None where that is not told.
    """

    __slots__ = ("_pixels", "arrived", "duration", "index", "pts", "source", "time", "time_base")

    index: int
    time: float
    source: str
    pts: int | None
    time_base: Fraction | None
    arrived: float
    duration: float | None
    _pixels: _Pixels

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
        values = (_Pixels(image, planes), arrived, duration, index, pts, source, time, time_base)
        for name, value in zip(Frame.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a frame does not change; frame.at({name}=...) makes one with the same picture")

    def at(
        self,
        *,
        index: int | None = None,
        time: float | None = None,
        source: str | None = None,
        pts: int | None = None,
        time_base: Fraction | None = None,
        arrived: float | None = None,
        duration: float | None = None,
    ) -> Frame:
        """Make a frame of the same picture at another place or time; what is not given stays as it is here.

        The pixels are shared, BGR that is made later included.
        """
        given = {
            "index": index,
            "time": time,
            "source": source,
            "pts": pts,
            "time_base": time_base,
            "arrived": arrived,
            "duration": duration,
        }
        made = object.__new__(Frame)
        for name in Frame.__slots__:
            value = given.get(name)
            object.__setattr__(made, name, getattr(self, name) if value is None else value)
        return made

    @property
    def planes(self) -> Planes | None:
        """The picture as YUV 4:2:0, where the decoder gave that, else None. Never write into them."""
        return self._pixels.planes

    @property
    def image(self) -> U8:
        """uint8 ``[H, W, 3]`` BGR, C-contiguous. Shared by all who hold the frame: never write into it."""
        return self._pixels.bgr()

    @property
    def picture(self) -> Picture:
        """The picture as the source gave it: planes where there are some, else BGR."""
        pixels = self._pixels
        return pixels.bgr() if pixels.planes is None else pixels.planes

    @property
    def width(self) -> int:
        picture = self.picture
        return picture.width if isinstance(picture, Planes) else int(picture.shape[1])

    @property
    def height(self) -> int:
        picture = self.picture
        return picture.height if isinstance(picture, Planes) else int(picture.shape[0])

    def __repr__(self) -> str:
        return f"Frame({self.width}x{self.height}, index={self.index}, time={self.time:.3f}, source={self.source!r})"
