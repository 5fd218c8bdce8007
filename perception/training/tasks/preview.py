"""Preview pictures with a network's predictions, for monitoring its training."""

from __future__ import annotations

import numpy as np

from perception.card import ModelCard
from perception.drawing.annotator import Annotator
from perception.picture.resize import to_input
from perception.postprocess.post_processing import DetectionOptions, PostProcessing
from perception.training.tasks.evaluation import Infer
from perception.types import U8, Frame, Prediction


def draw_prediction(card: ModelCard, image: U8, infer: Infer) -> U8:
    """Draw masks and boxes of a picture.

    Args:
        card: of the model being trained, for names, colours and thresholds.
        image: uint8 ``[H, W, 3]`` BGR.
        infer: the network.
    """
    fitted, letterbox = to_input(image, card.input.width, card.input.height, card.input.resize)
    outputs = {name: tensor.float().contiguous().numpy() for name, tensor in infer(fitted[None]).items()}
    detections, class_map, _ = PostProcessing(card, DetectionOptions())(outputs, letterbox)
    picture = Annotator(card)(Prediction(Frame(image), detections, class_map))
    assert isinstance(picture, np.ndarray)
    return picture
