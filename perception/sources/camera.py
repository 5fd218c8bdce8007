"""Cameras, through OpenCV: a thread takes every frame the driver gives and keeps the newest."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.common.bounds import Bounds
from perception.errors import SourceError
from perception.sources.base import Selection
from perception.sources.latest import LatestReader, LiveSource, selected
from perception.types import U8, Frame, Planes, SourceInfo

TIME_BASE = Fraction(1, 90_000)
"""A camera has no time stamps of its own here: ``pts`` counts the time since its first frame in these units."""


class CameraSource(LiveSource):
    """A local camera. Time runs from its first frame.

    Args:
        device: number (``0``) or path (``/dev/video0``).
        selection: which frames; ``start`` counts from the first frame.
        size_wh: width and height to ask for; the driver may choose others, ``info`` tells.
        fps: frame rate to ask for.
        timeout: seconds to wait for the camera to open, and for each frame.
        bounds: what it is held to.

    Raises:
        SourceError: there is no such camera, it is in use, it gives no picture, or one that is too large.
    """

    def __init__(
        self,
        device: str,
        selection: Selection,
        *,
        size_wh: tuple[int, int] | None = None,
        fps: float | None = None,
        timeout: float = 10.0,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__()
        self._bounds = bounds = bounds or Bounds()
        self._device = device
        self._select = selection
        self._size_wh = size_wh
        self._fps = fps
        self._timeout = timeout
        self._opened = threading.Event()
        self._first_size: tuple[int, int] | None = None
        self._device_fps = 0.0
        self._where = f"camera {device}"
        self._check_exists()
        self._reader = LatestReader(self._produce, self._where, bounds)
        with bounds.waking(self._opened.set):
            opened = self._opened.wait(timeout)
        if bounds.cancelled.is_set() or (not opened and self._reader.alive):
            self._reader.stop()
            bounds.check(self._where)
            raise SourceError(f"no picture arrived within {timeout:g} s", self._where)
        if self._first_size is None:
            self._reader.take()  # raises what ended the thread
            raise SourceError("no picture arrived", self._where)
        self.info = SourceInfo(
            uri=device,
            kind="camera",
            width=self._first_size[0],
            height=self._first_size[1],
            fps=Fraction(self._device_fps).limit_denominator(1001) if self._device_fps > 0 else None,
            time_base=TIME_BASE,
            live=True,
            start=selection.start,
            duration=selection.duration,
            every=selection.every,
        )

    def _check_exists(self) -> None:
        if sys.platform != "linux":
            return
        number = re.sub(r"\D", "", self._device)
        if not Path(f"/dev/video{number}").exists():
            there = sorted(str(p) for p in Path("/dev").glob("video*"))
            found = f"there are {', '.join(there)}" if there else "no camera is connected"
            raise SourceError(f"there is no such camera; {found}", self._where)

    def _open(self) -> Any:
        """Open a ``cv2.VideoCapture``, or what reads like one. Runs in the reader thread."""
        return open_device(self._device, self._size_wh, self._fps)

    def _convert(self, picture: U8) -> tuple[Planes | None, U8 | None]:
        """Convert the device's picture to planes or to uint8 ``[H, W, 3]`` BGR; the other one is None."""
        return None, cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture  # type: ignore[return-value]

    def _produce(self, stopping: threading.Event) -> Iterator[Frame | None]:
        """Runs in the reader thread, which alone touches the device."""
        capture = None
        try:
            with _quiet():
                capture = self._open()
                if self._bounds.max_pixels is not None:  # what the driver says that it will give, before it does
                    size = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
                    self._bounds.check_size(*size, self._where)
                image = _grab(capture)
            if image is None:
                raise SourceError(
                    "cannot be opened; is another program using it, or do you lack permission?", self._where
                )
            self._device_fps = float(capture.get(cv2.CAP_PROP_FPS) or 0)
            began = time.monotonic()
            planes, bgr = self._convert(image)
            first = Frame(bgr, planes=planes)
            self._bounds.check_size(first.width, first.height, self._where)
            self._first_size = first.width, first.height
            self._opened.set()
            for chosen in selected(self._grabbed(capture, image, began, stopping), self._select):
                if chosen is None:
                    yield None
                    continue
                index, seconds, (arrived, picture) = chosen
                planes, bgr = self._convert(picture)
                yield Frame(
                    bgr,
                    index=index,
                    time=seconds,
                    source=self._device,
                    pts=round(seconds / TIME_BASE),
                    time_base=TIME_BASE,
                    planes=planes,
                    arrived=arrived,
                )
        finally:
            if capture is not None:
                capture.release()
            self._opened.set()

    def _grabbed(
        self, capture: Any, first: U8, began: float, stopping: threading.Event
    ) -> Iterator[tuple[float, tuple[float, U8]]]:
        """Yield the pictures that the device gives: seconds since ``began``, and when it came with what it is."""
        arrived, image = began, first
        while not stopping.is_set():
            yield arrived - began, (arrived, image)
            grabbed = _grab(capture)
            arrived = time.monotonic()
            if grabbed is None:
                raise SourceError("no more pictures from the camera; was it unplugged?", self._where)
            image = grabbed


def open_device(device: str, size_wh: tuple[int, int] | None, fps: float | None) -> Any:
    """Open a ``cv2.VideoCapture`` of the camera, with the size and rate asked for if the driver has them."""
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = cv2.VideoCapture(int(device) if device.isdigit() else device, backend)
    if size_wh is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_wh[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_wh[1])
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def _grab(capture: Any) -> U8 | None:
    ok, image = capture.read()
    if not ok or image is None:
        return None
    return np.ascontiguousarray(image, np.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without OpenCV's own complaints on stderr; the error raised says it in one line."""
    # OpenCV 5 has them in a module of their own, OpenCV 4 at the top.
    levels: Any = getattr(cv2.utils, "logging", cv2)
    before = levels.getLogLevel()
    levels.setLogLevel(0)  # LOG_LEVEL_SILENT
    try:
        yield
    finally:
        levels.setLogLevel(before)
