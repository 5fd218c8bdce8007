"""TensorBoard's event files: numbers of every epoch, pictures of every evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TensorBoardWriter:
    """Writes TensorBoard's event files.

    Args:
        folder: for the files; a resumed run goes on in it.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def scalars(self, row: Mapping[str, Any], epoch: int) -> None:
        """Write the numbers of a log row; those of classes below the name of their metric."""
        for name, value in row.items():
            numbers = {f"{name}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
            for tag, number in numbers.items():
                self._writer.add_scalar(tag, number, epoch)
        self._writer.flush()

    def picture(self, name: str, image: NDArray[np.uint8], epoch: int) -> None:
        """Write a picture, uint8 ``[H, W, 3]`` BGR, as ``name``."""
        self._writer.add_image(name, np.ascontiguousarray(image[..., ::-1]), epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
