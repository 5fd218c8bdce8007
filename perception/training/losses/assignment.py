"""Assignment of objects to locations, at every step, by the network's predictions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SCORE_POWER = 0.5
IOU_POWER = 6.0
EPSILON = 1e-9


class Assignment(NamedTuple):
    """Objects of the locations of a picture.

    Attributes:
        objects: int64 ``[K]``: index of the object that a location answers for, -1 for none.
        quality: float32 ``[K]`` in 0..1: how well it should say that it does; 0 for none.
    """

    objects: Tensor
    quality: Tensor


@torch.no_grad()
def assign(
    locations: Tensor, boxes: Tensor, scores: Tensor, truth: Tensor, class_ids: Tensor, candidates: int
) -> Assignment:
    """Task-aligned assignment (TOOD, Feng et al. 2021) for one picture.

    A location inside an object is as good for it as ``score ** 0.5 * iou ** 6``. Each object takes its best
    ``candidates`` locations; one that several objects take goes to the one its box overlaps most. Qualities are
    scaled so that an object's best location has the object's best IoU.

    Args:
        locations: float32 ``[K, 2]`` xy.
        boxes: float32 ``[K, 4]`` xyxy, predicted.
        scores: float32 ``[K, C]`` class probabilities, predicted.
        truth: float32 ``[M, 4]`` xyxy.
        class_ids: int64 ``[M]``.
        candidates: most locations an object takes.
    """
    from torchvision.ops import box_iou  # takes seconds: not before something is trained

    count = len(locations)
    if len(truth) == 0:
        return Assignment(locations.new_full((count,), -1, dtype=torch.int64), locations.new_zeros(count))
    x, y = locations.unbind(1)
    left, top, right, bottom = truth.unsqueeze(2).unbind(1)
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)  # [M, K]
    iou = box_iou(truth, boxes)
    alignment = (scores[:, class_ids].T + EPSILON).pow(SCORE_POWER) * iou.pow(IOU_POWER)
    alignment = torch.where(inside, alignment + EPSILON, 0.0)  # inside is always better than outside
    best, where = alignment.topk(min(candidates, count), 1)
    taken = torch.zeros_like(alignment).scatter_(1, where, (best > 0).float()).bool()
    overlap, objects = torch.where(taken, iou, -1.0).max(0)
    objects = torch.where(overlap >= 0, objects, -1)
    mine = taken & (objects == torch.arange(len(truth), device=truth.device).unsqueeze(1))
    alignment = alignment * mine
    scale = (iou * mine).amax(1, keepdim=True) / alignment.amax(1, keepdim=True).clamp(min=EPSILON)
    return Assignment(objects, (alignment * scale).amax(0).clamp(0, 1))
