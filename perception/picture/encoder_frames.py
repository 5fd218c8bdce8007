"""Pictures as the encoder takes them: YUV 4:2:0 of one even size, one matrix, one range."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import numpy as np

from perception.types import U8, Picture, Planes

if TYPE_CHECKING:
    import av


class FrameMaker:
    """Makes encoder frames from pictures. The first picture fixes size, matrix and range.

    Planes with a contiguous ``buffer`` are wrapped without a copy. An odd size is padded to the next even one
    by repeating the last column or row, since 4:2:0 has no odd sizes and cropping would lose pixels. Later pictures of
    another size are fitted in with black bars; others in matrix or range are converted.

    Attributes:
        width, height: even size of the frames that are made.
        matrix: ITU-R BT.601 or BT.709.
        full_range: luma in 0..255 and not 16..235.
    """

    def __init__(self, first: Picture) -> None:
        height, width = (first.height, first.width) if isinstance(first, Planes) else first.shape[:2]
        self.width = width + width % 2
        self.height = height + height % 2
        self.matrix: Literal["bt601", "bt709"] = "bt601"
        self.full_range = False
        if isinstance(first, Planes):
            self.matrix = first.matrix
            self.full_range = first.full_range
        self._size = (width, height)
        self._pool: list[U8] = []

    def frame(self, picture: Picture) -> av.VideoFrame:
        """The picture as ``yuv420p``. It may share the picture's memory, which must stay as it is while it lives."""
        import av

        i420 = self._i420(picture)
        if self.height % 4 == 0:
            frame = av.VideoFrame.from_numpy_buffer(i420, format="yuv420p")
        else:
            # PyAV rounds the height of such a buffer down to a multiple of 4, and swscale would then stretch it.
            frame = av.VideoFrame(self.width, self.height, "yuv420p")
            for target, plane in zip(frame.planes, split_i420(i420, self.height), strict=True):
                rows = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
                rows[:, : target.width] = plane
        frame.colorspace = av.video.reformatter.Colorspace.ITU709 if self.matrix == "bt709" else 6  # smpte170m
        frame.color_range = 2 if self.full_range else 1
        return frame

    def _i420(self, picture: Picture) -> U8:
        """uint8 ``[height * 3 // 2, width]``."""
        if isinstance(picture, Planes):
            same = picture.matrix == self.matrix and picture.full_range == self.full_range
            if same and (picture.width, picture.height) == self._size:
                return self._from_planes(picture)
            picture = picture.to_bgr()
        return self._from_bgr(picture)

    def _from_planes(self, planes: Planes) -> U8:
        buffer = planes.buffer
        if buffer is not None and buffer.shape == (self.height * 3 // 2, self.width) and buffer.flags.c_contiguous:
            return buffer
        out = self._buffer()
        y, u, v = split_i420(out, self.height)
        for target, plane in ((y, planes.y), (u, planes.u), (v, planes.v)):
            h, w = plane.shape
            target[:h, :w] = plane
            target[:h, w:] = plane[:, -1:]
            target[h:] = target[h - 1]
        return out

    def _from_bgr(self, bgr: U8) -> U8:
        import cv2

        bgr = _fit(bgr, self._size)
        if self._size != (self.width, self.height):
            below, right = self.height - self._size[1], self.width - self._size[0]
            bgr = np.asarray(cv2.copyMakeBorder(bgr, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        out = self._buffer()
        if self.matrix == "bt601" and not self.full_range:
            cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420, dst=out)
            return out
        import av

        # Rare: a source whose pictures change. swscale knows all matrices and ranges.
        frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(bgr), format="bgr24")
        matrix = "ITU709" if self.matrix == "bt709" else "ITU601"
        yuv = frame.reformat(
            format="yuv420p",
            src_color_range="JPEG",
            dst_color_range="JPEG" if self.full_range else "MPEG",
            dst_colorspace=matrix,
        )
        np.copyto(out, yuv.to_ndarray())
        return out

    def _buffer(self) -> U8:
        """Memory for one frame: used again when nothing refers to it any more, an encoder that looks ahead included."""
        for buffer in self._pool:
            if sys.getrefcount(buffer) <= 3:  # the pool, this loop's name, the argument
                return buffer
        buffer = np.empty((self.height * 3 // 2, self.width), np.uint8)
        if len(self._pool) < 4:
            self._pool.append(buffer)
        return buffer


def split_i420(buffer: U8, height: int) -> tuple[U8, U8, U8]:
    """Views of the Y, U and V planes in a contiguous I420 buffer of an even size."""
    width = buffer.shape[1]
    flat = buffer.reshape(-1)
    luma, chroma = width * height, width * height // 4
    y = flat[:luma].reshape(height, width)
    u = flat[luma : luma + chroma].reshape(height // 2, width // 2)
    v = flat[luma + chroma : luma + 2 * chroma].reshape(height // 2, width // 2)
    return y, u, v


def _fit(bgr: U8, size_wh: tuple[int, int]) -> U8:
    """The picture scaled into ``size_wh``, aspect ratio kept, on black."""
    import cv2

    height, width = bgr.shape[:2]
    to_width, to_height = size_wh
    if (width, height) == size_wh:
        return bgr
    scale = min(to_width / width, to_height / height)
    inner_w = max(1, min(to_width, round(width * scale)))
    inner_h = max(1, min(to_height, round(height * scale)))
    canvas = np.zeros((to_height, to_width, 3), np.uint8)
    left, top = (to_width - inner_w) // 2, (to_height - inner_h) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + inner_h, left : left + inner_w] = cv2.resize(bgr, (inner_w, inner_h), interpolation=how)
    return canvas
