"""The confusion matrix of a classifier as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUMBERS_UP_TO = 20  # classes for which the matrix's cells are labelled


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str], output: Path) -> None:
    """Draw pictures by true (rows) and likeliest class (columns), int64 ``[C, C]``, into the PNG ``output``."""
    from matplotlib.figure import Figure

    count = len(classes)
    side = min(3 + 0.32 * count, 14)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    every = -(-count // 50)
    axes.set_xticks(range(0, count, every), classes[::every], rotation=90, fontsize=8)
    axes.set_yticks(range(0, count, every), classes[::every], fontsize=8)
    axes.set(xlabel="taken for", ylabel="is")
    if count <= NUMBERS_UP_TO:
        for row, column in np.argwhere(confusion > 0).tolist():
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, confusion[row, column], ha="center", va="center", fontsize=7, color=color)
    figure.savefig(output, dpi=110)
