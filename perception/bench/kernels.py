"""Compare each kernel with the obvious alternative: same inputs, alternately in one process, medians.

Alternatives that are not installed are listed as skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from perception.picture.conversions import planes_to_bgr
from perception.picture.letterbox import Letterbox
from perception.picture.resize import to_input
from perception.postprocess.detection import nms
from perception.postprocess.segmentation import overlay
from perception.types import F32, U8, Planes

Row = dict[str, Any]
Call = Callable[[], Any]

_INPUT = (480, 360)
_OPACITY = 0.5


def kernel_rows(repeats: int = 30, logits: F32 | None = None, image: U8 | None = None) -> list[Row]:
    """Measure every kernel.

    Args:
        repeats: measurements of each; slow alternatives get fewer.
        logits: float32 ``[C, h, w]`` of a real frame; made from smooth noise if None.
        image: uint8 ``[H, W, 3]`` BGR, both sides even; noise at 1280x720 if None.

    Returns:
        Rows ``{name, ours_ms, alternative, alternative_ms, ratio}``, times in milliseconds; where the alternative is
        not installed ``{name, alternative, skipped}`` with the reason.
    """
    rng = np.random.default_rng(0)
    if image is None:
        image = rng.integers(0, 256, (720, 1280, 3), np.uint8)
    if logits is None:
        logits = _smooth(rng, 11, 90, 120)
    planes = _to_planes(image)
    rows = _overlay_rows(repeats, logits, image, planes)
    if logits.shape[1] * 4 > _INPUT[1]:  # finer than stride 4, which most networks have
        rows += _overlay_rows(repeats, _halved(logits), image, planes)
    for n in (100, 1000, 5000):
        rows += _nms_rows(repeats, n)
    return rows + _resize_rows(repeats, planes)


def _halved(logits: F32) -> F32:
    """Logits at twice the stride: means of 2x2."""
    classes, height, width = logits.shape
    pairs = logits[:, : height // 2 * 2, : width // 2 * 2].reshape(classes, height // 2, 2, width // 2, 2)
    return pairs.mean(axis=(2, 4), dtype=np.float32)


def _overlay_rows(repeats: int, logits: F32, image: U8, planes: Planes) -> list[Row]:
    import cv2

    height, width = image.shape[:2]
    classes = len(logits)
    box = Letterbox.fit(width, height, *_INPUT)
    palette = np.random.default_rng(1).integers(0, 256, (classes, 3), np.uint8)
    out = np.empty_like(image)
    out_planes = Planes.from_i420(np.empty((height * 3 // 2, width), np.uint8), planes.matrix, planes.full_range)

    def ours() -> None:
        overlay(image, logits, box, palette, _OPACITY, out)

    def ours_in_planes() -> None:
        overlay(planes, logits, box, palette, _OPACITY, out_planes)

    def mask() -> U8:
        return np.stack([cv2.resize(c, (width, height)) for c in logits]).argmax(axis=0).astype(np.uint8)

    def opencv(picture: U8 = image) -> U8:
        return cv2.addWeighted(picture, 1 - _OPACITY, palette[mask()], _OPACITY, 0)  # type: ignore[return-value]

    def opencv_planes() -> Any:
        bgr = opencv(cv2.cvtColor(planes.buffer, cv2.COLOR_YUV2BGR_I420))  # type: ignore[arg-type]
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)

    ours()
    assert np.abs(out.astype(int) - opencv()).max(axis=2).mean() < 1, "the overlays differ"
    shape = f"{width}x{height} from {list(logits.shape)}"
    name = f"overlay, BGR {shape}"
    rows = [
        _row(name, ours, "OpenCV + NumPy: resize, argmax, look-up, addWeighted", opencv, repeats),
        _row(
            f"overlay, YUV planes {shape}",
            *(ours_in_planes, "OpenCV + NumPy, with conversion to BGR and back", opencv_planes, repeats),
        ),
    ]
    alternative = "supervision MaskAnnotator, masks given"
    try:
        import supervision as sv
    except ImportError:
        return [*rows, _skipped(name, alternative, "supervision is not installed")]
    ids = np.unique(mask())
    masks = mask()[None] == ids[:, None, None]
    detections = sv.Detections(xyxy=sv.mask_to_xyxy(masks), mask=masks, class_id=ids.astype(int))
    colors = sv.ColorPalette([sv.Color(int(r), int(g), int(b)) for b, g, r in palette])
    annotator = sv.MaskAnnotator(color=colors, opacity=_OPACITY)
    rows.append(_row(name, ours, alternative, lambda: annotator.annotate(image.copy(), detections), repeats))
    return rows


def _nms_rows(repeats: int, n: int) -> list[Row]:
    """Measure NMS on boxes as a detector gives them: about ten around each object, in 20 classes."""
    rng = np.random.default_rng(n)
    objects = max(n // 10, 1)
    centre = rng.uniform(0, (1280, 720), (objects, 2)).repeat(10, axis=0)[:n]
    side = rng.uniform(20, 200, (objects, 2)).repeat(10, axis=0)[:n]
    centre += rng.normal(size=(n, 2)) * side * 0.1
    half = side * rng.uniform(0.8, 1.25, (n, 2)) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    scores = rng.random(n).astype(np.float32)
    ids = rng.integers(0, 20, objects).repeat(10)[:n]
    name = f"NMS, {n} boxes in 20 classes"
    rows = []

    def ours() -> Any:
        return nms(boxes, scores, ids, 0.5)

    try:
        import torch
        import torchvision
    except ImportError:
        rows.append(_skipped(name, "torchvision batched_nms", "torchvision is not installed"))
    else:
        tensors = [torch.from_numpy(a) for a in (boxes, scores, ids)]

        def theirs() -> Any:
            return torchvision.ops.batched_nms(*tensors, 0.5)

        assert np.array_equal(ours(), theirs().numpy()), "torchvision keeps other boxes"
        rows.append(_row(name, ours, "torchvision batched_nms (same boxes kept)", theirs, repeats))

    import cv2

    dnn: Any = cv2.dnn  # its type stubs want lists, which are slower
    if not hasattr(dnn, "NMSBoxesBatched"):
        return [*rows, _skipped(name, "cv2.dnn.NMSBoxesBatched", "this OpenCV has none")]
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)
    ids32 = ids.astype(np.int32)

    def opencv() -> Any:
        return dnn.NMSBoxesBatched(xywh, scores, ids32, 0.0, 0.5)

    return [*rows, _row(name, ours, "cv2.dnn.NMSBoxesBatched", opencv, repeats)]


def _resize_rows(repeats: int, planes: Planes) -> list[Row]:
    import cv2

    out = np.empty((_INPUT[1], _INPUT[0], 3), np.uint8)
    size = f"{planes.width}x{planes.height}"

    def ours() -> None:
        to_input(planes, *_INPUT, out=out)

    assert planes.buffer is not None
    buffer = planes.buffer

    def convert() -> Any:
        return cv2.cvtColor(buffer, cv2.COLOR_YUV2BGR_I420)

    name = f"YUV planes {size} to BGR {_INPUT[0]}x{_INPUT[1]}, area mean"
    return [
        _row(
            *(name, ours, "cvtColor, resize INTER_AREA"),
            lambda: cv2.resize(convert(), _INPUT, interpolation=cv2.INTER_AREA),
            repeats,
        ),
        _row(
            *(name, ours, "cvtColor, resize INTER_LINEAR (aliases)"),
            lambda: cv2.resize(convert(), _INPUT, interpolation=cv2.INTER_LINEAR),
            repeats,
        ),
        _row(f"YUV planes to BGR {size}", lambda: planes_to_bgr(planes), "cvtColor", convert, repeats),
    ]


def _row(name: str, ours: Call, alternative: str, theirs: Call, repeats: int) -> Row:
    """Measure two calls turn by turn; at most about two seconds for the slower one."""
    for _ in range(2):
        ours()
        slow = _seconds(theirs)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(min(repeats, int(2 / max(slow, 1e-6))), 3)):
        times[0].append(_seconds(ours))
        times[1].append(_seconds(theirs))
    a, b = (median(t) * 1000 for t in times)
    return {"name": name, "ours_ms": a, "alternative": alternative, "alternative_ms": b, "ratio": b / a}


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _skipped(name: str, alternative: str, reason: str) -> Row:
    return {"name": name, "alternative": alternative, "skipped": reason}


def _smooth(rng: np.random.Generator, classes: int, h: int, w: int) -> F32:
    import cv2

    noise = rng.normal(size=(classes, h, w)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(c, (0, 0), h / 8) for c in noise]) * 50


def _to_planes(image: U8) -> Planes:
    import cv2

    return Planes.from_i420(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8))
