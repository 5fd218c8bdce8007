"""A scene, and the answers of networks to it."""

from __future__ import annotations

import cv2
import numpy as np

from perception.card import ModelCard, SegmentationTask, read_card
from perception.classics.tour.stop import Stop
from perception.drawing.annotator import Annotator
from perception.errors import ModelError
from perception.evaluation.metrics import ConfusionMatrix
from perception.explain.maps import Method, explain
from perception.explain.tiles import side_by_side
from perception.model import load_model
from perception.picture.conversions import to_bgr
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import MaskClassMap
from perception.postprocess.segmentation import class_mask
from perception.stages.panoptic import PanopticStage
from perception.types import U8, Frame, Panoptic, Picture, Prediction
from perception.weights.library import find_model

STRIDES = (4, 8, 16, 32)
METHODS: tuple[Method, ...] = ("gradient", "guided", "smoothgrad", "occlusion")
FCNS = ("fcn-32s-camvid", "fcn-16s-camvid", "fcn-8s-camvid")
WIDTH = 400  # of one picture beside others


def resolution(stop: Stop) -> U8:
    """Draw the best that a map of each stride could say of a mask: its exact shares of classes, interpolated."""
    card, prediction = _looked(stop)
    assert card.segmentation is not None and prediction.class_map is not None
    mask = prediction.class_map.mask
    height, width = mask.shape
    classes = len(card.segmentation.classes)
    shares = (mask[..., None] == np.arange(classes)).astype(np.float32)
    tiles = [("the scene", stop.frame), ("its mask", _colors(mask, card.segmentation))]
    for stride in STRIDES:
        size = (max(round(width / stride), 1), max(round(height / stride), 1))
        coarse = np.stack([cv2.resize(shares[..., c], size, interpolation=cv2.INTER_AREA) for c in range(classes)])
        made = class_mask(coarse, Letterbox.fit(width, height, width, height))
        matrix = ConfusionMatrix(classes)
        matrix.add(made, mask)
        tiles.append((f"from stride {stride}: mean IoU {matrix.mean_iou():.2f}", _colors(made, card.segmentation)))
    return side_by_side([(title, _small(tile)) for title, tile in tiles])


def panoptic_view(stop: Stop) -> U8:
    """Classes of pixels and boxes of things, and the segments that they become."""
    card, prediction = _looked(stop)
    prediction = PanopticStage(card)(prediction)
    assert prediction.panoptic is not None and prediction.class_map is not None
    boxes = Annotator(card, legend=False, labels=False)(prediction)
    outlines = Annotator(card, legend=False, labels=False, view="panoptic")(prediction)
    count = len(prediction.panoptic.segments)
    return side_by_side(
        [
            ("classes of pixels, boxes of things", _small(_bgr(boxes))),
            ("instances", _small(_bgr(outlines))),
            (f"{count} segments", _small(_segments(prediction.panoptic))),
        ]
    )


def heat(stop: Stop) -> U8:
    """Draw which pixels mattered for the surest box, or for the class with the most pixels."""
    card = read_card(find_model(stop.model))
    task = "detection" if card.detection is not None else None
    made = [explain(stop.model, stop.frame, method=method, task=task, samples=4, patches=8) for method in METHODS]
    tiles = [(made[0].what, _around(stop.frame, made[0].box))]
    tiles += [(e.method, _around(e.picture(), e.box)) for e in made]
    return side_by_side([(title, _small(tile, 200)) for title, tile in tiles], columns=len(tiles))


def fcns(stop: Stop) -> U8:
    """Draw the masks of FCN-32s, 16s and 8s, and the shipped model's beside them.

    Raises:
        ModelError: they are not trained yet.
    """
    tiles = [("the scene", stop.frame)]
    for name, model in [(recipe, stop.exported(recipe)) for recipe in FCNS] + [(stop.model, find_model(stop.model))]:
        with load_model(model) as loaded:
            annotate = Annotator(loaded.card, boxes=False, legend=False, opacity=0.7)
            tiles.append((name, _bgr(annotate(loaded.predict(stop.frame)))))
    return side_by_side([(title, _small(tile)) for title, tile in tiles])


def detector(stop: Stop) -> U8:
    """Draw the boxes of the sliding-window detector.

    Raises:
        ModelError: it is not trained yet.
    """
    with load_model(stop.exported("sliding-window-highway")) as loaded:
        return _bgr(Annotator(loaded.card)(loaded.predict(stop.frame)))


def _looked(stop: Stop) -> tuple[ModelCard, Prediction]:
    """Return the truth of the scene as if a model had said it; where it is not known, what the model says.

    Raises:
        ModelError: the model gives no masks.
    """
    card = read_card(find_model(stop.model))
    if card.segmentation is None:
        raise ModelError("the tour needs a model with masks, such as street", stop.model)
    if stop.truth is None:
        with load_model(stop.model) as loaded:
            return card, loaded.predict(stop.frame)
    detections, mask = stop.truth
    known = card.model_dump() | {"detection": {"classes": card.segmentation.classes}, "things": None}
    height, width = mask.shape
    class_map = MaskClassMap(mask, len(card.segmentation.classes), Letterbox.fit(width, height, width, height))
    return ModelCard.model_validate(known), Prediction(Frame(stop.frame), detections, class_map)


def _colors(mask: U8, task: SegmentationTask) -> U8:
    palette = np.array([c.color[::-1] for c in task.classes], np.uint8)
    made: U8 = palette[mask]
    return made


def _segments(view: Panoptic) -> U8:
    """Draw each segment in a colour of its own."""
    rng = np.random.default_rng(5)
    palette = rng.integers(60, 256, (len(view.segments) + 1, 3)).astype(np.uint8)
    palette[0] = 0
    made: U8 = palette[view.ids]
    return made


def _small(image: U8, width: int = WIDTH) -> U8:
    size = (width, round(image.shape[0] * width / image.shape[1]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _around(image: U8, box: tuple[float, float, float, float] | None) -> U8:
    """Return the box, xyxy in pixels, and as much again around it, 4:3; the whole picture where there is none."""
    if box is None:
        return image
    height, width = image.shape[:2]
    w = min(max(2 * (box[2] - box[0]), 8 / 3 * (box[3] - box[1])), width, height * 4 / 3)
    h = w * 3 / 4
    left = round(min(max((box[0] + box[2] - w) / 2, 0), width - w))
    top = round(min(max((box[1] + box[3] - h) / 2, 0), height - h))
    return image[top : top + round(h), left : left + round(w)]


def _bgr(picture: Picture) -> U8:
    return to_bgr(picture)
