"""Conversion of pictures for the encoder: YUV 4:2:0 of one even size, one matrix, one range."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perception.picture.buffer_pool import BufferPool
from perception.picture.conversions import to_bgr
from perception.picture.letterbox import Letterbox
from perception.picture.planes import U8, Matrix, Picture, Planes, size_of

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
        width, height = size_of(first)
        self.width = width + width % 2
        self.height = height + height % 2
        self.matrix: Matrix = "bt601"
        self.full_range = False
        if isinstance(first, Planes):
            self.matrix = first.matrix
            self.full_range = first.full_range
        self._size = (width, height)
        self._pool = BufferPool(limit=4)

    def frame(self, picture: Picture) -> av.VideoFrame:
        """Make a ``yuv420p`` frame. It may share the picture's memory, which must not change while it lives."""
        import av

        i420 = self._i420(picture)
        if self.height % 4 == 0:
            frame = av.VideoFrame.from_numpy_buffer(i420, format="yuv420p")
        else:
            # PyAV rounds the height of such a buffer down to a multiple of 4, and swscale would then stretch it.
            frame = av.VideoFrame(self.width, self.height, "yuv420p")
            planes = Planes.from_i420(i420)
            for target, plane in zip(frame.planes, (planes.y, planes.u, planes.v), strict=True):
                rows = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
                rows[:, : target.width] = plane
        frame.colorspace = av.video.reformatter.Colorspace.ITU709 if self.matrix == "bt709" else 6  # smpte170m
        frame.color_range = 2 if self.full_range else 1
        return frame

    def _i420(self, picture: Picture) -> U8:
        """Convert to I420, uint8 ``[height * 3 // 2, width]``."""
        if isinstance(picture, Planes):
            same = picture.matrix == self.matrix and picture.full_range == self.full_range
            if same and (picture.width, picture.height) == self._size:
                return self._from_planes(picture)
        return self._from_bgr(to_bgr(picture))

    def _from_planes(self, planes: Planes) -> U8:
        buffer = planes.buffer
        if buffer is not None and buffer.shape == (self.height * 3 // 2, self.width) and buffer.flags.c_contiguous:
            return buffer
        out = self._buffer()
        padded = Planes.from_i420(out)
        for target, plane in ((padded.y, planes.y), (padded.u, planes.u), (padded.v, planes.v)):
            h, w = plane.shape
            target[:h, :w] = plane
            target[:h, w:] = plane[:, -1:]
            target[h:] = target[h - 1]
        return out

    def _from_bgr(self, bgr: U8) -> U8:
        import cv2

        bgr = _fit(bgr, *self._size)
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
        """Memory for one frame; an encoder that looks ahead keeps it from being used again."""
        return self._pool.get((self.height * 3 // 2, self.width))


def _fit(bgr: U8, width: int, height: int) -> U8:
    """Scale the picture into ``width`` x ``height``, aspect ratio kept, on black."""
    import cv2

    box = Letterbox.fit(*size_of(bgr), width, height, "letterbox")
    if (box.frame_width, box.frame_height) == (width, height):
        return bgr
    canvas = np.zeros((height, width, 3), np.uint8)
    how = cv2.INTER_AREA if box.width < box.frame_width or box.height < box.frame_height else cv2.INTER_LINEAR
    inner = cv2.resize(bgr, (box.width, box.height), interpolation=how)
    canvas[box.top : box.top + box.height, box.left : box.left + box.width] = inner
    return canvas
