"""Precision of boxes at given recalls, by a maintained COCO evaluator."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perception.types import F32, Detections

MAX_DETECTIONS = 100
"""As COCO has it."""

Truth: TypeAlias = tuple[F32, NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]
"""Truth of a picture: boxes ``[M, 4]`` xyxy, class ids ``[M]``, crowd ``[M]``, areas in pixels ``[M]``."""


def coco_precision(
    truth: Sequence[Truth], found: Sequence[Detections], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision as COCO defines it, interpolated, over boxes of all sizes.

    Args:
        truth: of each picture. A crowd is a region where boxes of its class count neither way.
        found: of each picture, in the same order; the first `MAX_DETECTIONS` of a class count.
        classes: number of classes K; ids are below it.

    Returns:
        Precision float64 ``[T, R, K]`` at IoU 0.5, 0.55, ... 0.95 and recall 0, 0.01, ... 1, and the least score that
        gives it, same shape. Both are -1 for a class that no picture has.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    quiet = logging.getLogger("perception").debug
    objects: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (boxes, ids, crowd, areas) in enumerate(truth):
        for box, k, c, area in zip(_xywh(boxes), ids.tolist(), crowd.tolist(), areas.tolist(), strict=True):
            # ids of annotations begin with 1: COCO's evaluation takes 0 for "none"
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image,
                    "category_id": k,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(c),
                }
            )
    for image, detections in enumerate(found):
        rows = zip(_xywh(detections.boxes), detections.class_ids.tolist(), detections.scores.tolist(), strict=True)
        for box, k, score in rows:
            results.append(
                {"id": len(results) + 1, "image_id": image, "category_id": k, "bbox": box, "area": box[2] * box[3],
                 "iscrowd": 0, "score": score}
            )  # fmt: skip
    common = {
        "images": [{"id": i} for i in range(len(truth))],
        "categories": [{"id": k, "name": str(k)} for k in range(classes)],
    }
    evaluator = COCOeval_faster(
        COCO(common | {"annotations": objects}, print_function=quiet),
        COCO(common | {"annotations": results}, print_function=quiet),
        "bbox",
        print_function=quiet,
    )
    evaluator.params.maxDets = [1, 10, MAX_DETECTIONS]
    evaluator.evaluate()
    evaluator.accumulate()
    # [T, R, K, A, M]: all sizes come first, most detections last
    return evaluator.eval["precision"][:, :, :, 0, -1], evaluator.eval["scores"][:, :, :, 0, -1]


def _xywh(boxes: F32) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    wide[:, 2:] -= wide[:, :2]
    rows: list[list[float]] = wide.tolist()
    return rows
