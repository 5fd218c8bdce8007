"""Conversion of decoded frames to upright pictures: planes where that costs nothing, else BGR.

Colours. The matrix and range are those that the frame is tagged with. Untagged pictures are read as BT.601 limited
range whatever their size, as swscale, OpenCV and the ffmpeg tool do, so that results match theirs. Wide-gamut
BT.2020 is brought to BT.709 coefficients; HDR transfer curves (PQ, HLG) are not tone-mapped.

Alpha is dropped: pixels keep their stored colour, as ``cv2.imread`` does for images.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from perception.common.bounds import Bounds
from perception.picture.planes import U8, Matrix, Planes

# Values of FFmpeg's AVColorSpace (in the frame) on the left, of swscale's SWS_CS_* (what reformat takes) on the right.
_SWS_COLORSPACE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_SWS_BT601, _SWS_BT709 = 5, 1
_LIMITED, _FULL = 1, 2

_PLANAR_420 = frozenset({"yuv420p", "yuvj420p", "yuva420p"})
_FULL_RANGE_FORMATS = ("yuvj", "gray", "ya", "monow", "monob")
_EIGHT_BIT_420 = ("nv12", "nv21")
_DEEP_420 = ("yuv420p", "yuva420p", "p010", "p012", "p016")

_MAX_SAR = 8
_SAR_TOLERANCE = Fraction(1, 200)
# Only from this release on does reformat know the number of threads; before, it always used one.
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


class Orientation:
    """The turn that makes a stored picture upright: transpose, then flip.

    Made from the container's display matrix, which maps stored x, y to shown x, y (ISO/IEC 14496-12, 6.2.2).
    Any of the eight orientations is exact; other angles are taken to the nearest of them.
    """

    __slots__ = ("flip_x", "flip_y", "transpose")

    def __init__(self, transpose: bool = False, flip_x: bool = False, flip_y: bool = False) -> None:
        self.transpose = transpose
        self.flip_x = flip_x
        self.flip_y = flip_y

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """Return the orientation that ``frame`` is tagged with."""
        # Not `frame.side_data`: the frame would keep that and that the frame, and with it the decoder's memory, until
        # the garbage collector comes, which takes minutes where little but pictures is made.
        side_data: Any = SideDataContainer
        data = side_data(frame).get("DISPLAYMATRIX")
        if data is None:
            return UPRIGHT
        a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(data), np.int32)[:5])
        if a == b == c == d == 0:
            return UPRIGHT
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0) if a < 0 or d < 0 else UPRIGHT

    @property
    def upright(self) -> bool:
        return not (self.transpose or self.flip_x or self.flip_y)

    def apply(self, array: U8) -> U8:
        """``array`` ``[H, W]`` or ``[H, W, 3]`` turned upright; itself if it is upright already."""
        if self.transpose:
            if self.flip_x != self.flip_y:
                turn = cv2.ROTATE_90_CLOCKWISE if self.flip_x else cv2.ROTATE_90_COUNTERCLOCKWISE
                return np.asarray(cv2.rotate(array, turn), np.uint8)
            array = np.asarray(cv2.transpose(array), np.uint8)
        if self.flip_x or self.flip_y:
            code = -1 if self.flip_x and self.flip_y else 1 if self.flip_x else 0
            array = np.asarray(cv2.flip(array, code), np.uint8)
        return array


UPRIGHT = Orientation()


class Converter:
    """Turns pictures of one stream into ``Planes`` or BGR, upright and with square pixels.

    8-bit 4:2:0 becomes planes that are views of the decoder's own memory: nothing is copied, and that memory stays
    alive as long as the views do. Deeper and semi-planar 4:2:0 becomes 8-bit planes in one pass. The rest becomes BGR.

    Args:
        sample_aspect_ratio: width of a pixel by its height. Pictures with other than square pixels are
            stretched in width to square ones, as players show them.
        bounds: what the pictures are held to, stretched.
        where: what to name in errors.
    """

    def __init__(
        self, sample_aspect_ratio: Fraction | None = None, bounds: Bounds | None = None, where: str = ""
    ) -> None:
        self._bounds = bounds or Bounds()
        self._where = where
        sar = sample_aspect_ratio or Fraction(1)
        odd = not Fraction(1, _MAX_SAR) <= sar <= _MAX_SAR or abs(sar - 1) <= _SAR_TOLERANCE
        self._sar = Fraction(1) if odd else sar
        self._reformatter = av.video.reformatter.VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> tuple[Planes | None, U8 | None]:
        """Convert ``frame`` to planes or to uint8 ``[H, W, 3]`` BGR; the other one is None.

        Raises:
            SourceError: it is too large.
        """
        name = frame.format.name
        space = _SWS_COLORSPACE.get(frame.colorspace, _SWS_BT601)
        full = frame.color_range == _FULL or (frame.color_range == 0 and name.startswith(_FULL_RANGE_FORMATS))
        color_range = _FULL if full else _LIMITED
        size = frame.width, frame.height
        if self._sar != 1:
            size = max(1, round(frame.width * self._sar)), frame.height
        self._bounds.check_size(*size, self._where)
        orientation = Orientation.of(frame)
        # 4:2:0 chroma of an odd side has no whole pixel to turn about.
        turns = orientation.upright or not (size[0] % 2 or size[1] % 2)

        if turns and frame.colorspace != 0 and space != 9:
            wanted = "yuvj420p" if name == "yuvj420p" else "yuv420p"
            if name not in _PLANAR_420 and name.startswith(_EIGHT_BIT_420 + _DEEP_420):
                frame = self._reformat(frame, size, wanted, space, space, color_range, color_range)
            elif name in _PLANAR_420 and size != (frame.width, frame.height):
                frame = self._reformat(frame, size, name, space, space, color_range, color_range)
            if frame.format.name in _PLANAR_420:
                matrix: Matrix = "bt709" if space in (_SWS_BT709, 7) else "bt601"
                return _planes(frame, orientation, matrix, full), None

        frame = self._reformat(frame, size, "bgr24", space, _SWS_BT709, color_range, _FULL)
        image = orientation.apply(_view(frame.planes[0], frame.height, frame.width * 3).reshape(*size[::-1], 3))
        return None, np.ascontiguousarray(image)

    def _reformat(
        self,
        frame: av.VideoFrame,
        size: tuple[int, int],
        pix_fmt: str,
        src_space: int,
        dst_space: int,
        src_range: int,
        dst_range: int,
    ) -> av.VideoFrame:
        return self._reformatter.reformat(
            frame,
            *size,
            format=pix_fmt,
            src_colorspace=src_space,
            dst_colorspace=dst_space,
            src_color_range=src_range,
            dst_color_range=dst_range,
            **_ONE_THREAD,
        )


def _planes(frame: av.VideoFrame, orientation: Orientation, matrix: Matrix, full_range: bool) -> Planes:
    width, height = frame.width, frame.height
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    y, u, v = frame.planes[:3]
    return Planes(
        orientation.apply(_view(y, height, width)),
        orientation.apply(_view(u, half_height, half_width)),
        orientation.apply(_view(v, half_height, half_width)),
        matrix,
        full_range,
    )


def _view(plane: av.video.plane.VideoPlane, rows: int, row_bytes: int) -> U8:
    """View a plane's own memory without its line padding, uint8 ``[rows, row_bytes]``. It keeps the frame alive."""
    line = abs(plane.line_size)
    array = np.frombuffer(memoryview(plane), np.uint8, rows * line)
    return array.reshape(rows, line)[:, :row_bytes]
