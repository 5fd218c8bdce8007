"""Pictures with what a network sees in them drawn on, to look at while it is trained."""

from __future__ import annotations

import numpy as np

from perception.card import ModelCard
from perception.drawing.annotator import Annotator
from perception.picture.letterbox import to_input
from perception.postprocess.detection import decode
from perception.training.tasks.evaluation import Infer
from perception.types import U8, ClassMap, Frame, Prediction


def draw_prediction(card: ModelCard, image: U8, infer: Infer) -> U8:
    """Draw masks and boxes of a picture.

    Args:
        card: of the model being trained, for names, colours and thresholds.
        image: uint8 ``[H, W, 3]`` BGR.
        infer: the network.
    """
    frame = Frame(image)
    fitted, letterbox = to_input(frame, card.input.width, card.input.height, card.input.resize)
    results = infer(fitted[None])
    prediction = Prediction(frame)
    if card.segmentation is not None:
        logits = results[card.segmentation.output][0].float().contiguous().numpy()
        prediction.class_map = ClassMap(logits, letterbox)
    if card.detection is not None:
        task = card.detection
        prediction.detections = decode(
            results[task.boxes][0].float().numpy(),
            results[task.scores][0].float().numpy(),
            letterbox,
            score_threshold=task.score_threshold,
            iou_threshold=task.iou_threshold,
            max_detections=task.max_detections,
            class_agnostic=task.class_agnostic,
            vote_iou=task.vote_iou,
        )
    picture = Annotator(card)(prediction)
    assert isinstance(picture, np.ndarray)
    return picture
