"""What TensorBoard shows of a run: numbers of every epoch, pictures of every evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard
from perception.drawing.annotator import Annotator
from perception.picture.resize import to_input
from perception.postprocess.detection import decode
from perception.training.tasks.evaluation import Infer
from perception.types import ClassMap, Frame, Prediction


class Board:
    """Writes TensorBoard's event files.

    Args:
        folder: for the files; a resumed run goes on in it.
        card: of the model being trained, for names, colours and thresholds.
    """

    def __init__(self, folder: Path, card: ModelCard) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.card = card
        self._writer: Any = SummaryWriter(str(folder))
        self._annotate = Annotator(card)

    def scalars(self, row: Mapping[str, Any], epoch: int) -> None:
        """The numbers of a log row; those of classes below the name of their metric."""
        for name, value in row.items():
            numbers = {f"{name}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
            for tag, number in numbers.items():
                self._writer.add_scalar(tag, number, epoch)
        self._writer.flush()

    def picture(self, name: str, image: NDArray[np.uint8], infer: Infer, epoch: int) -> None:
        """What the network sees in a picture.

        Args:
            name: where it stands on the page.
            image: uint8 ``[H, W, 3]`` BGR.
            infer: the network.
            epoch: which epoch it is of.
        """
        card, frame = self.card, Frame(image)
        fitted, letterbox = to_input(frame.picture, card.input.width, card.input.height, card.input.resize)
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
        picture = self._annotate(prediction)
        assert isinstance(picture, np.ndarray)
        self._writer.add_image(name, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
