"""Training of several recipes, one after the other, and a table of what they reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.card import read_card
from perception.training.export.release import release
from perception.training.recipes.base import RunConfig
from perception.training.recipes.read import read_config
from perception.training.run.loop import train
from perception.training.run.progress import OnProgress
from perception.training.run.run_log import RunLog
from perception.weights.library import find_model

HEADLINE = ("accuracy", "error_percent", "iou_mean", "miou", "map50", "map")
EXPORTED = "best.onnx"

COMPARED = "camvid"
"""The model of ``research/`` that was measured on the same pictures as the classics that segment."""


def train_once(recipe: Path, on_progress: OnProgress | None = None) -> Path:
    """Train and export by ``recipe``, going on where an earlier run stopped; nothing where all is done.

    Returns:
        The exported model.
    """
    config = read_config(recipe)
    model = config.output / EXPORTED
    if not model.is_file():
        result = train(recipe, on_progress=on_progress)
        release(result.best, model)
    return model


def row(config: RunConfig) -> dict[str, Any]:
    """Make the row of a recipe: the accuracy of its exported model on its held-out pictures, by OpenVINO in float32."""
    model, rows = config.output / EXPORTED, RunLog(config.output / "log.jsonl").rows()
    result: dict[str, Any] = {"recipe": config.name}
    if rows:
        result |= {"epochs": rows[-1]["epoch"], "minutes": round(sum(r["seconds"] for r in rows) / 60, 1)}
    if model.is_file():
        metrics = read_card(model).metrics
        names = [f"{config.name}_val_{name}" for name in HEADLINE]
        result |= {n: round(metrics[k], 4) for n, k in zip(HEADLINE, names, strict=True) if k in metrics}
    return result


def shipped() -> dict[str, Any]:
    """Make the row of `COMPARED`, to stand beside them: its accuracy on the same pictures.

    Raises:
        ModelError: it is not installed.
    """
    metrics = read_card(find_model(COMPARED)).metrics
    named = {n: f"{COMPARED}_val_{n}" for n in HEADLINE}
    return {"recipe": f"{COMPARED} (shipped)", **{n: round(metrics[k], 4) for n, k in named.items() if k in metrics}}
