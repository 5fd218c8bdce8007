"""Post-processing of boxes on the GPU: filter by score and suppress, to the same bytes as
`perception.postprocess.detection`, without its box voting. Suppression compares in float32, each product rounded before
it is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from perception.picture.letterbox import Letterbox
from perception.postprocess import detection
from perception.postprocess.cuda import SIMULATED, add, cuda, multiply
from perception.types import Detections

CAPACITY = 4096
"""Candidates of a frame that are suppressed on the GPU; a frame with more goes to the CPU."""

_BLOCK = 32 if SIMULATED else 256  # the simulator starts a thread of the system for each


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
        area = multiply(x2 - x1, y2 - y1)
        for s in range(r + 1 + t, n, _BLOCK):
            j = order[s]
            if agnostic or class_id[j] == class_id[i]:
                w = max(min(x2, candidate[j, 2]) - max(x1, candidate[j, 0]), zero)
                h = max(min(y2, candidate[j, 3]) - max(y1, candidate[j, 1]), zero)
                inter = multiply(w, h)
                other = multiply(candidate[j, 2] - candidate[j, 0], candidate[j, 3] - candidate[j, 1])
                if inter / (add(area, other) - inter) > threshold:
                    gone[s] = 1
        cuda.syncthreads()
    if t == 0:
        kept[0] = survivors


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
