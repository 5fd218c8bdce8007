"""The result of one frame as one binary message: what the browser draws over its own picture.

All numbers are little-endian; every part but the last starts at a multiple of 4 bytes, so that JavaScript can lay
typed arrays over it::

    char[4]  "PCR1"
    u32      number of the frame, as the client gave it
    u16 u16  width and height of the frame in pixels
    u16 u16  width and height of the class map in cells (0 where there is none)
    u16 u16 u16 u16  N boxes, C ids of the class map (0 where there is none), L whole-image labels,
                     T = N where the boxes are tracked, else 0
    u32      bytes of the class map's code
    f32[6]   milliseconds: decode, wait, resize, infer, postprocess, and all from the message's arrival to the answer
    f32[N,4] boxes, xyxy in pixels of the frame
    f32[N]   scores, highest first
    i32[N]   class ids, into the card's detection classes
    u32[T]   identities of the boxes, from 1
    f32[C]   part of the frame that each segmentation class has, and at last unknown pixels, where the client asked
             for such
    i32[L] f32[L]  class ids and probabilities of the whole-image labels, most likely first
    u8[...]  class map as runs, see `perception.postprocess.runs`

The class map covers the frame, edge to edge, with square cells as near as integers allow. It is the argmax of the
bilinearly upsampled logits at that size, so that its edges are where those of the full-size mask are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from perception.postprocess.runs import decode_runs, encode_runs
from perception.types import F32, U8, Detections, Prediction, counts_to_shares

MAGIC = b"PCR1"
STAGES = ("decode", "wait", "resize", "infer", "postprocess", "server")
_HEAD = struct.Struct("<4sI8HI6f")


@dataclass
class Result:
    """A message read back.

    Attributes:
        number: of the frame, as the client gave it.
        width, height: of the frame in pixels.
        detections: the boxes, in pixels of the frame; none where the model makes none.
        labels: whole-image classes as (class id, probability), most likely first.
        shares: float32 ``[C]``, the part of the frame each segmentation class has, or None without a class map.
        class_map: uint8 ``[h, w]`` of class ids over the whole frame, or None.
        timings: milliseconds, by the names in `STAGES`.
    """

    number: int
    width: int
    height: int
    detections: Detections
    labels: list[tuple[int, float]] = field(default_factory=list)
    shares: F32 | None = None
    class_map: U8 | None = None
    timings: dict[str, float] = field(default_factory=dict)


def map_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """(width, height) of a class map over a frame of that size, whose longest side has at most ``longest`` cells."""
    scale = min(1.0, longest / max(width, height))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def pack(number: int, prediction: Prediction, timings: dict[str, float], *, longest: int) -> bytes:
    """The message of a prediction.

    Args:
        number: of the frame, 0 to 2**32 - 1.
        prediction: of a frame of at most 65535 pixels a side.
        timings: milliseconds by stage; those of the prediction are added.
        longest: cells of the class map's longest side; 0 leaves the map out (and keeps the shares).
    """
    boxes = prediction.detections or Detections.empty()
    tracks = np.zeros(0, np.int64) if boxes.track_ids is None else boxes.track_ids
    labels = prediction.labels or []
    frame, width, height = prediction.frame, 0, 0
    shares = np.zeros(0, np.float32)
    code = np.zeros(0, np.uint8)
    if prediction.class_map is not None:
        classes = prediction.class_map.classes + (prediction.class_map.unknown is not None)
        if longest:
            width, height = map_size(frame.width, frame.height, longest)
            code, counts = encode_runs(prediction.class_map.resized(width, height))
            shares = counts_to_shares(counts[:classes])
        else:
            shares = prediction.class_map.shares
    times = {**prediction.timings, **timings}
    head = _HEAD.pack(
        MAGIC, number, frame.width, frame.height, width, height, len(boxes), len(shares), len(labels), len(tracks),
        len(code), *(times.get(stage, 0.0) for stage in STAGES),
    )  # fmt: skip
    return b"".join(
        (
            head,
            boxes.boxes.astype("<f4").tobytes(),
            boxes.scores.astype("<f4").tobytes(),
            boxes.class_ids.astype("<i4").tobytes(),
            tracks.astype("<u4").tobytes(),
            shares.astype("<f4").tobytes(),
            np.array([i for i, _ in labels], "<i4").tobytes(),
            np.array([p for _, p in labels], "<f4").tobytes(),
            code.tobytes(),
        )
    )


def unpack(message: bytes) -> Result:
    """The inverse of `pack`, for clients in Python.

    Raises:
        ValueError: it is no such message, or is cut short.
    """
    try:
        magic, number, width, height, map_width, map_height, n, c, m, tracked, size, *times = _HEAD.unpack_from(message)
        if magic != MAGIC:
            raise ValueError
        at = _HEAD.size
        parts = []
        sizes = (4 * n, n, n, tracked, c, m, m, size)
        for kind, count in zip(("<f4", "<f4", "<i4", "<u4", "<f4", "<i4", "<f4", "u1"), sizes, strict=True):
            parts.append(np.frombuffer(message, kind, count, at))
            at += parts[-1].nbytes
        if at != len(message) or tracked not in (0, n):
            raise ValueError
    except (struct.error, ValueError):
        raise ValueError("not a result message, or one that is cut short") from None
    boxes, scores, ids, tracks, shares, label_ids, label_scores, code = parts
    return Result(
        number,
        width,
        height,
        Detections(
            boxes.astype(np.float32).reshape(-1, 4),
            scores.astype(np.float32),
            ids.astype(np.int32),
            tracks.astype(np.int64) if tracked else None,
        ),
        list(zip(label_ids.tolist(), label_scores.tolist(), strict=True)),
        shares.astype(np.float32) if c else None,
        decode_runs(code, map_height, map_width) if map_width else None,
        dict(zip(STAGES, times, strict=True)),
    )
