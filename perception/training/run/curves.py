"""Loss and accuracy over the epochs of a run, as a picture."""

from __future__ import annotations

from pathlib import Path

from perception.training.run.run_log import RunLog

SCORES = ("accuracy", "iou_mean", "miou", "map50")


def draw_curves(log: RunLog, output: Path) -> None:
    """Draw the loss and the score of every epoch in ``log`` into the PNG ``output``."""
    from matplotlib.figure import Figure

    rows = log.rows()
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for axes, names, title in ((losses, ("loss", "val_loss"), "loss"), (scores, SCORES, "score")):
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else None)
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(output, dpi=110)
