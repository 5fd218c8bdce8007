"""Cameras on a Jetson's CSI connector, through GStreamer: ``csi://0?size=1280x720&fps=30&flip=rotate-180``.

The image signal processor fills buffers of its own (NVMM memory), nvvidconv turns the picture and brings it to the
host as I420, which is what the rest of the package takes as it is. No pixel is converted by the CPU.

The elements and their properties are those of NVIDIA's "Jetson Linux Developer Guide", chapter "Accelerated GStreamer";
``gst-inspect-1.0 nvarguscamerasrc`` and ``gst-inspect-1.0 nvvidconv`` print those of a device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qsl

import cv2
import numpy as np

from perception.common.bounds import Bounds
from perception.common.settings import nearest
from perception.errors import SourceError, UsageError
from perception.sources.base import Selection
from perception.sources.camera import CameraSource
from perception.sources.uri import exact
from perception.types import U8, Planes

FLIPS = (
    "none",
    "counterclockwise",
    "rotate-180",
    "clockwise",
    "horizontal-flip",
    "upper-right-diagonal",
    "vertical-flip",
    "upper-left-diagonal",
)
"""Meanings of nvvidconv's property ``flip-method``, by number."""

_TURNED = (1, 3, 5, 7)
"""Those that exchange width and height."""

_MAX_SENSOR_MODE = 255


@dataclass(frozen=True, slots=True)
class CsiCamera:
    """The settings to ask of a camera.

    Attributes:
        sensor: number of the camera, ``sensor-id``.
        width, height: of the sensor's picture in pixels, before it is turned; both even.
        fps: frames per second.
        flip: how to turn the picture, an index into `FLIPS`.
        mode: ``sensor-mode``, a row of the driver's table; -1 lets it choose by size and rate.
    """

    sensor: int = 0
    width: int = 1280
    height: int = 720
    fps: Fraction = Fraction(30)
    flip: int = 0
    mode: int = -1

    @classmethod
    def from_uri(cls, uri: str) -> CsiCamera:
        """From ``csi://0?size=WxH&fps=N&flip=NAME&mode=N``; what is left out has its default.

        Raises:
            UsageError: an unknown parameter, or a value out of its range.
        """
        head, _, query = uri.partition("?")
        number = re.fullmatch(r"csi://(\d{1,2})/?", head, re.IGNORECASE)
        if number is None:
            raise UsageError("give a CSI camera by its number, for example csi://0", uri)
        camera = cls(sensor=int(number[1]))
        for name, value in parse_qsl(query, keep_blank_values=True):
            camera = camera._with(name, value, uri)
        return camera

    def _with(self, name: str, value: str, uri: str) -> CsiCamera:
        if name == "size":
            sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value.lower())
            if sides is None:
                raise UsageError(f"invalid size {value!r}: write it like 1280x720", uri)
            return replace(self, width=int(sides[1]), height=int(sides[2]))._checked(uri)
        if name == "fps":
            try:
                return replace(self, fps=exact(value))._checked(uri)
            except (ValueError, ZeroDivisionError):
                raise UsageError(f"fps must be a number, not {value!r}", uri) from None
        if name == "flip":
            if value not in FLIPS:
                raise UsageError(f"unknown flip {value!r}; choose one of: {', '.join(FLIPS)}", uri)
            return replace(self, flip=FLIPS.index(value))
        if name == "mode":
            if not re.fullmatch(r"\d{1,3}", value) or int(value) > _MAX_SENSOR_MODE:
                raise UsageError(f"mode must be in 0..{_MAX_SENSOR_MODE}, not {value!r}", uri)
            return replace(self, mode=int(value))
        raise UsageError(f"unknown parameter {name!r}{nearest(name, ('size', 'fps', 'flip', 'mode'))}", uri)

    def _checked(self, uri: str) -> CsiCamera:
        if min(self.width, self.height) < 2 or max(self.width, self.height) > 16384:
            raise UsageError(f"size must be from 2x2 to 16384x16384, not {self.width}x{self.height}", uri)
        if self.width % 2 or self.height % 2:
            raise UsageError(f"width and height must be even, not {self.width}x{self.height}", uri)
        if not 0 < self.fps <= 1000:
            raise UsageError(f"fps must be in 0..1000, not {float(self.fps):g}", uri)
        return self

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames, turned as asked for, in pixels."""
        return (self.height, self.width) if self.flip in _TURNED else (self.width, self.height)

    @property
    def pipeline(self) -> str:
        """The GStreamer pipeline, in the notation of ``gst-launch-1.0``."""
        fps = self.fps.limit_denominator(1001)
        width, height = self.size
        return " ! ".join([
            f"nvarguscamerasrc sensor-id={self.sensor} sensor-mode={self.mode}",
            f"video/x-raw(memory:NVMM), width=(int){self.width}, height=(int){self.height}, format=(string)NV12, "
            f"framerate=(fraction){fps.numerator}/{fps.denominator}",
            f"nvvidconv flip-method={self.flip}",
            f"video/x-raw, width=(int){width}, height=(int){height}, format=(string)I420",
            # only the newest picture counts, and it is wanted at once
            "appsink drop=true max-buffers=1 sync=false",
        ])  # fmt: skip


class CsiSource(CameraSource):
    """See `CameraSource`. A camera on a Jetson's CSI connector.

    Args:
        uri: see `CsiCamera.from_uri`.
        selection: which frames; ``start`` counts from the first frame.
        size_wh, fps: what to ask for, in place of what the URI says.
        timeout: seconds to wait for the camera to open, and for each frame.
        bounds: what it is held to.

    Raises:
        UsageError: the URI has a parameter that is unknown or out of its range.
        SourceError: OpenCV has no GStreamer, or the camera gives no picture.
    """

    def __init__(
        self,
        uri: str,
        selection: Selection,
        *,
        size_wh: tuple[int, int] | None = None,
        fps: float | None = None,
        timeout: float = 10.0,
        bounds: Bounds | None = None,
    ) -> None:
        camera = CsiCamera.from_uri(uri)
        if size_wh is not None:
            camera = replace(camera, width=size_wh[0], height=size_wh[1])._checked(uri)
        if fps is not None:
            camera = replace(camera, fps=Fraction(fps).limit_denominator(1001))._checked(uri)
        self.camera = camera
        if bounds is not None:
            bounds.check_size(camera.width, camera.height, f"camera {uri}")
        super().__init__(uri, selection, timeout=timeout, bounds=bounds)

    def _check_exists(self) -> None:
        if not has_gstreamer():
            raise SourceError(
                f"this OpenCV ({cv2.__version__}) was built without GStreamer, which CSI cameras need; on a Jetson use "
                "the system's: apt install python3-opencv, a venv with --system-site-packages, no opencv-python in it",
                self._where,
            )

    def _open(self) -> Any:
        return cv2.VideoCapture(self.camera.pipeline, cv2.CAP_GSTREAMER)

    def _convert(self, picture: U8) -> tuple[Planes | None, U8 | None]:
        return i420_planes(picture, *self.camera.size), None


def has_gstreamer() -> bool:
    """True where this OpenCV was built with GStreamer."""
    build = re.search(r"^\s*GStreamer:\s*(\w+)", cv2.getBuildInformation(), re.MULTILINE)
    return build is not None and build[1] == "YES"


def i420_planes(picture: U8, width: int, height: int) -> Planes:
    """Planes that are views of an I420 picture, as OpenCV gives one.

    NVIDIA's NvBufSurface has NV12 and I420 in BT.601 with limited range unless their names say otherwise.

    Args:
        picture: uint8 ``[height * 3 / 2, width]`` or ``[height * 3 / 2, width, 1]``.
        width, height: of the frame in pixels, even.

    Raises:
        SourceError: the picture has another size or type.
    """
    if picture.dtype != np.uint8 or picture.size != width * height * 3 // 2:
        raise SourceError(f"gives pictures {picture.dtype} {list(picture.shape)}, not I420 of {width}x{height}")
    return Planes.from_i420(np.ascontiguousarray(picture).reshape(height * 3 // 2, width))
