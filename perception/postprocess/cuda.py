"""What the CPU kernels do, on the GPU: fit a frame into the network's input, overlay a class mask, filter and suppress
boxes. Each gives the same bytes as its twin: `preprocess.to_input`, `postprocess.masks`, `postprocess.detection`.

Arrays on the GPU are those of numba-cuda, or anything with ``__cuda_array_interface__``. Work is put on a stream and
not waited for, except by `Decoder`, whose result is on the host. Float products are rounded before they are added, as
on the CPU: a compiler for GPUs would else fuse the two and now and then round to another byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numba.cuda
import numpy as np
from numba.core import config as numba_config
from numpy.typing import ArrayLike

from perception.postprocess import detection, masks
from perception.preprocess import PAD, Letterbox
from perception.types import U8, Detections
from perception.yuv import axis_taps

cuda: Any = numba.cuda
_config: Any = numba_config

CAPACITY = 4096
"""Candidates of a frame that are suppressed on the GPU; a frame with more goes to the CPU."""

_TILE = (16, 16)
_BLOCK = 32 if _config.ENABLE_CUDASIM else 256  # the simulator starts a thread of the system for each

if _config.ENABLE_CUDASIM:

    def _mul(a, b):  # type: ignore[no-untyped-def]
        return a * b

    def _add(a, b):  # type: ignore[no-untyped-def]
        return a + b
else:
    from numba.cuda import libdevice

    _mul, _add = libdevice.fmul_rn, libdevice.fadd_rn


@cuda.jit
def fit_kernel(source, sx, wx, sy, wy, left, top, out):  # type: ignore[no-untyped-def]
    """One thread a pixel of ``out [h, w, 3]``; the frame fills a rectangle of it, the rest is grey."""
    x, y = cuda.grid(2)
    if y >= out.shape[0] or x >= out.shape[1]:
        return
    column, line = x - left, y - top
    if column < 0 or line < 0 or column >= sx.shape[0] or line >= sy.shape[0]:
        for i in range(3):
            out[y, x, i] = np.uint8(PAD)
        return
    for i in range(3):
        total = np.float32(0)
        for t in range(wx.shape[1]):
            c = sx[column] + t
            value = _mul(wy[line, 0], np.float32(source[sy[line], c, i]))
            for k in range(1, wy.shape[1]):
                weight = wy[line, k]
                if weight != np.float32(0):
                    value = _add(value, _mul(weight, np.float32(source[sy[line] + k, c, i])))
            total = _add(total, _mul(wx[column, t], value))
        out[y, x, i] = np.uint8(_add(min(max(total, np.float32(0)), np.float32(255)), np.float32(0.5)))


@cuda.jit
def overlay_kernel(image, labels, rows, columns, keep, colors, out):  # type: ignore[no-untyped-def]
    """One thread a pixel of ``image [H, W, 3]``; ``labels [h, w]`` is looked up at ``rows[y], columns[x]``."""
    x, y = cuda.grid(2)
    if y >= image.shape[0] or x >= image.shape[1]:
        return
    c = labels[rows[y], columns[x]]
    for i in range(3):
        value = np.uint32(image[y, x, i]) * np.uint32(keep[c]) + np.uint32(colors[c, i])
        out[y, x, i] = np.uint8(value >> np.uint32(8))


@cuda.jit
def find_kernel(  # type: ignore[no-untyped-def]
    boxes, scores, thresholds, left, top, sx, sy, width, height, found, candidate, score, class_id
):
    """One block: the pairs of box and class worth a look, in their order, with boxes in frame pixels.

    ``found[0]`` is their number; those beyond the capacity of the other arrays are counted and not written.
    """
    counts = cuda.shared.array(_BLOCK, np.int32)
    t = cuda.threadIdx.x
    rows, classes = scores.shape
    share = (rows + _BLOCK - 1) // _BLOCK
    begin = t * share
    end = min(begin + share, rows)
    zero = np.float32(0)
    for write in range(2):
        at = 0
        if write:
            at = counts[t]
        for k in range(begin, end):
            x1 = (boxes[k, 0] - left) * sx
            y1 = (boxes[k, 1] - top) * sy
            x2 = (boxes[k, 2] - left) * sx
            y2 = (boxes[k, 3] - top) * sy
            total = x1 + y1 + x2 + y2
            if total - total != zero:  # a coordinate is NaN or infinite
                continue
            x1, x2 = min(max(x1, zero), width), min(max(x2, zero), width)
            y1, y2 = min(max(y1, zero), height), min(max(y2, zero), height)
            if not (x2 > x1 and y2 > y1):
                continue
            for c in range(classes):
                if scores[k, c] >= thresholds[c]:
                    if write and at < score.shape[0]:
                        candidate[at, 0] = x1
                        candidate[at, 1] = y1
                        candidate[at, 2] = x2
                        candidate[at, 3] = y2
                        score[at] = scores[k, c]
                        class_id[at] = c
                    at += 1
        if not write:
            counts[t] = at
            cuda.syncthreads()
            if t == 0:
                total_found = 0
                for i in range(_BLOCK):
                    n = counts[i]
                    counts[i] = total_found
                    total_found += n
                found[0] = total_found
            cuda.syncthreads()


@cuda.jit
def rank_kernel(found, score, order):  # type: ignore[no-untyped-def]
    """One thread a candidate: ``order[r]`` is the candidate with the ``r``-th best score, ties by index."""
    i = cuda.grid(1)
    n = found[0]
    if i >= n or n > score.shape[0]:
        return
    mine = score[i]
    rank = 0
    for j in range(n):
        if score[j] > mine or (score[j] == mine and j < i):
            rank += 1
    order[rank] = i


@cuda.jit
def suppress_kernel(found, candidate, class_id, order, threshold, agnostic, gone, kept, limit):  # type: ignore[no-untyped-def]
    """One block: greedy suppression; ``kept[0]`` is the number of survivors, their indices follow, best first."""
    t = cuda.threadIdx.x
    n = found[0]
    if n > order.shape[0]:
        return
    for i in range(t, n, _BLOCK):
        gone[i] = 0
    cuda.syncthreads()
    zero = np.float32(0)
    survivors = 0
    for r in range(n):
        # all threads see the same, since nobody writes between here and the last wait
        if gone[r]:
            continue
        i = order[r]
        if t == 0:
            kept[1 + survivors] = i
        survivors += 1
        if survivors == limit:
            break
        x1, y1, x2, y2 = candidate[i, 0], candidate[i, 1], candidate[i, 2], candidate[i, 3]
        area = _mul(x2 - x1, y2 - y1)
        for s in range(r + 1 + t, n, _BLOCK):
            j = order[s]
            if agnostic or class_id[j] == class_id[i]:
                w = max(min(x2, candidate[j, 2]) - max(x1, candidate[j, 0]), zero)
                h = max(min(y2, candidate[j, 3]) - max(y1, candidate[j, 1]), zero)
                inter = _mul(w, h)
                other = _mul(candidate[j, 2] - candidate[j, 0], candidate[j, 3] - candidate[j, 1])
                if inter / (_add(area, other) - inter) > threshold:
                    gone[s] = 1
        cuda.syncthreads()
    if t == 0:
        kept[0] = survivors


def fit(image: Any, letterbox: Letterbox, out: Any, stream: Any = 0) -> None:
    """Resize a frame into a network's input, as `perception.preprocess.to_input` does.

    Args:
        image: uint8 ``[H, W, 3]`` BGR on the GPU, of the frame's size.
        letterbox: where the frame goes.
        out: uint8 ``[h, w, 3]`` on the GPU, of the input's size; all of it is written.
        stream: where the work is put.

    Raises:
        ValueError: an array is of another size.
    """
    _check("image", image, (letterbox.frame_height, letterbox.frame_width, 3))
    _check("out", out, (letterbox.input_height, letterbox.input_width, 3))
    fit_kernel[_grid(out), _TILE, stream](image, *_device_taps(letterbox), letterbox.left, letterbox.top, out)


def overlay(
    image: Any,
    labels: Any,
    letterbox: Letterbox,
    palette_bgr: U8,
    opacity: float,
    out: Any,
    ignored: Sequence[int] = (),
    stream: Any = 0,
) -> None:
    """Blend the class colours of a mask over a frame, as `perception.postprocess.masks` does.

    Args:
        image: uint8 ``[H, W, 3]`` BGR on the GPU, of the frame's size.
        labels: uint8 ``[h, w]`` of class ids on the GPU, over the network's input.
        letterbox: how the frame lies in the input.
        palette_bgr: uint8 ``[C, 3]`` on the host; C is above every id.
        opacity: 0 (picture) to 1 (colour), rounded to a multiple of 1/64.
        out: uint8 ``[H, W, 3]`` on the GPU, to be written; may be ``image``.
        ignored: class ids that leave the picture as it is.
        stream: where the work is put.

    Raises:
        ValueError: an array is of another size.
    """
    _check("image", image, (letterbox.frame_height, letterbox.frame_width, 3))
    _check("out", out, (letterbox.frame_height, letterbox.frame_width, 3))
    places = _device_places(letterbox, int(labels.shape[0]), int(labels.shape[1]))
    tables = _device_tables(np.ascontiguousarray(palette_bgr, np.uint8).tobytes(), opacity, tuple(ignored))
    overlay_kernel[_grid(image), _TILE, stream](image, labels, *places, *tables, out)


class Decoder:
    """Detections from a network's outputs on the GPU, as `perception.postprocess.detection.decode` makes them.

    Args:
        capacity: most candidates of a frame that are handled on the GPU.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._found = cuda.device_array(1, np.int32)
        self._candidate = cuda.device_array((capacity, 4), np.float32)
        self._score = cuda.device_array(capacity, np.float32)
        self._class_id = cuda.device_array(capacity, np.int32)
        self._order = cuda.device_array(capacity, np.int32)
        self._gone = cuda.device_array(capacity, np.uint8)
        self._kept = cuda.device_array(capacity + 1, np.int32)
        self._capacity = capacity

    def decode(
        self,
        boxes: Any,
        scores: Any,
        letterbox: Letterbox,
        *,
        score_threshold: float | ArrayLike = 0.3,
        iou_threshold: float = 0.6,
        max_detections: int = 300,
        class_agnostic: bool = False,
        class_filter: Iterable[int] | None = None,
        stream: Any = 0,
    ) -> Detections:
        """The detections of one frame.

        Args:
            boxes: float32 ``[K, 4]`` xyxy in input pixels, on the GPU.
            scores: float32 ``[K, C]``, on the GPU.
            letterbox, score_threshold, iou_threshold, max_detections, class_agnostic, class_filter: as on the CPU.
            stream: where the work is put; the call waits for it.

        Raises:
            ValueError: shapes do not fit together, or an option is out of range.
        """
        if len(boxes.shape) != 2 or boxes.shape[1] != 4 or len(scores.shape) != 2 or scores.shape[0] != boxes.shape[0]:
            raise ValueError(f"expected boxes [K, 4] and scores [K, C], got {boxes.shape} and {scores.shape}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be positive, got {max_detections}")
        thresholds = detection.class_thresholds(score_threshold, int(scores.shape[1]), class_filter)
        placement = detection.placement(letterbox)
        find_kernel[1, _BLOCK, stream](
            boxes, scores, cuda.to_device(thresholds, stream=stream), *placement, self._found, self._candidate,
            self._score, self._class_id,
        )  # fmt: skip
        blocks = (self._capacity + _BLOCK - 1) // _BLOCK
        rank_kernel[blocks, _BLOCK, stream](self._found, self._score, self._order)
        suppress_kernel[1, _BLOCK, stream](
            self._found, self._candidate, self._class_id, self._order, detection.float32_below(iou_threshold),
            class_agnostic, self._gone, self._kept, max_detections,
        )  # fmt: skip
        number = self._found.copy_to_host(stream=stream)
        if stream:
            stream.synchronize()
        found = int(number[0])
        if found > self._capacity:
            return detection.decode(
                boxes.copy_to_host(), scores.copy_to_host(), letterbox, score_threshold=score_threshold,
                iou_threshold=iou_threshold, max_detections=max_detections, class_agnostic=class_agnostic,
                class_filter=class_filter,
            )  # fmt: skip
        kept = self._kept.copy_to_host(stream=stream)
        results = (self._candidate, self._score, self._class_id)
        candidate, score, class_id = (array.copy_to_host(stream=stream) for array in results)
        if stream:
            stream.synchronize()
        picked = kept[1 : 1 + kept[0]]
        return Detections(candidate[picked], score[picked], class_id[picked])


def _check(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if tuple(array.shape) != shape or array.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8 {list(shape)}, got {array.dtype} {list(array.shape)}")


def _grid(array: Any) -> tuple[int, int]:
    return -(-int(array.shape[1]) // _TILE[0]), -(-int(array.shape[0]) // _TILE[1])


@lru_cache(maxsize=16)
def _device_taps(box: Letterbox) -> tuple[Any, ...]:
    """Which pixels make each pixel of the input, and their weights; for the columns, then for the rows."""
    if (box.frame_width, box.frame_height) == (box.width, box.height):
        axes = [(np.arange(n, dtype=np.int64), np.ones((n, 1), np.float32)) for n in (box.width, box.height)]
    else:
        axes = [
            axis_taps(box.frame_width, float(box.frame_width), box.width),
            axis_taps(box.frame_height, float(box.frame_height), box.height),
        ]
    return tuple(cuda.to_device(array) for axis in axes for array in axis)


@lru_cache(maxsize=16)
def _device_places(letterbox: Letterbox, h: int, w: int) -> tuple[Any, Any]:
    rows, columns = masks.nearest(letterbox, h, w)
    return cuda.to_device(rows), cuda.to_device(columns)


@lru_cache(maxsize=16)
def _device_tables(palette: bytes, opacity: float, ignored: tuple[int, ...]) -> tuple[Any, Any]:
    colors = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    keep, weighted = masks.bgr_tables(colors, opacity, ignored)
    return cuda.to_device(keep), cuda.to_device(weighted)
