"""A segmentation network of other people, on several views of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from perception.common.files import sha256_of
from perception.common.telemetry import import_openvino
from perception.errors import ModelError
from perception.training.pseudo_labels.recipe import MaskTeacherConfig
from perception.types import U8

GREY = 128
SILENT = 254
"""What a teacher answers where it sees a class that stands for none of ours."""
UNSURE = 255
"""Where its views disagree."""


class MaskTeacher:
    """A network that answers class ids, run by OpenVINO.

    Args:
        config: of the teacher.
        classes: our class names in the order of their ids.

    Attributes:
        digest: SHA-256 of the model file, hexadecimal.

    Raises:
        ModelError: The file is missing, cannot be read, or is of another kind than the recipe says.
    """

    def __init__(self, config: MaskTeacherConfig, classes: Sequence[str]) -> None:
        self._config = config
        try:
            self.digest = sha256_of(config.model)
            self._network = import_openvino().Core().compile_model(str(config.model), "CPU")
        except OSError as error:
            raise ModelError(f"cannot read the teacher: {error.strerror or error}", config.model) from None
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot read the teacher: {str(error).splitlines()[0]}", config.model) from None
        shape = list(self._network.inputs[0].partial_shape.get_min_shape())
        width, height = config.size
        if shape[0] not in (0, 1) or [height, width] not in (shape[1:3], shape[2:4]):
            raise ModelError(f"its input is {shape}, not one picture of {width}x{height}", config.model)
        self._channels_last = shape[-1] == 3
        self._floats = self._network.inputs[0].element_type.is_real()
        self._ours = np.full(256, SILENT, np.uint8)
        for name, ours in config.ids.items():
            self._ours[config.classes.index(name)] = classes.index(ours)

    def label(self, image: U8, views: Sequence[Sequence[float]], mirror: bool) -> U8:
        """Label a picture.

        Args:
            image: uint8 ``[H, W, 3]`` BGR.
            views: parts of it that are looked at besides the whole: x1, y1, x2, y2 in 0..1.
            mirror: look at each of them mirrored, too.

        Returns:
            uint8 ``[H, W]``: our class ids where all views that show a pixel agree; `SILENT` where they agree on a
            class that is none of ours; else `UNSURE`.
        """
        height, width = image.shape[:2]
        answer = self._one(image, mirror)
        for x1, y1, x2, y2 in views:
            rows = slice(round(y1 * height), max(round(y2 * height), round(y1 * height) + 1))
            columns = slice(round(x1 * width), max(round(x2 * width), round(x1 * width) + 1))
            part = answer[rows, columns]
            part[part != self._one(np.ascontiguousarray(image[rows, columns]), mirror)] = UNSURE
        return answer

    def _one(self, image: U8, mirror: bool) -> U8:
        answer = self._ours[self._infer(image)]
        if mirror:
            other = self._ours[self._infer(np.ascontiguousarray(image[:, ::-1]))][:, ::-1]
            answer[answer != other] = UNSURE
        return answer

    def _infer(self, image: U8) -> U8:
        """Return the teacher's own ids, uint8 ``[H, W]``."""
        (width, height), (rows, columns) = self._config.size, image.shape[:2]
        if self._config.resize == "stretch":
            fitted, used = cv2.resize(image, (width, height)), (height, width)
        else:
            zoom = min(width / columns, height / rows)
            used = (max(round(rows * zoom), 1), max(round(columns * zoom), 1))
            fitted = np.full((height, width, 3), GREY, np.uint8)
            fitted[: used[0], : used[1]] = cv2.resize(image, used[::-1])
        tensor = fitted[None, :, :, ::-1] if self._channels_last else fitted[None, :, :, ::-1].transpose(0, 3, 1, 2)
        tensor = tensor.astype(np.float32) if self._floats else tensor
        output = np.asarray(next(iter(self._network([np.ascontiguousarray(tensor)]).values())))[0]
        if output.ndim == 3 and 1 not in output.shape:
            axis = -1 if output.shape[-1] == len(self._config.classes) else 0
            if output.shape[axis] != len(self._config.classes):
                raise ModelError(
                    f"its output is {list(output.shape)}; the recipe names {len(self._config.classes)} classes",
                    self._config.model,
                )
            output = output.argmax(axis)
        elif output.max() >= len(self._config.classes):
            raise ModelError(
                f"it answers class {int(output.max())}; the recipe names {len(self._config.classes)} classes",
                self._config.model,
            )
        ids = np.squeeze(output).astype(np.uint8)
        across, down = ids.shape[1] / width, ids.shape[0] / height
        ids = ids[: max(round(used[0] * down), 1), : max(round(used[1] * across), 1)]
        return cv2.resize(ids, (columns, rows), interpolation=cv2.INTER_NEAREST)
