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
from perception.postprocess.post_processing import DetectionOptions, PostProcessing
from perception.training.tasks.evaluation import Infer
from perception.types import Frame, Prediction


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
        self._post_processing = PostProcessing(card, DetectionOptions())

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
        outputs = {name: tensor.float().contiguous().numpy() for name, tensor in results.items()}
        detections, class_map, _ = self._post_processing(outputs, letterbox)
        prediction = Prediction(frame, detections, class_map)
        picture = self._annotate(prediction)
        assert isinstance(picture, np.ndarray)
        self._writer.add_image(name, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
