"""``python -m perception.classics.train RECIPE...``: train what is not trained yet, print what all of it reached."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from perception.card import read_card
from perception.errors import PerceptionError
from perception.training.export.release import release
from perception.training.recipes.dense import AnyConfig, read_config
from perception.training.run.loop import train
from perception.training.run.run_log import RunLog
from perception.weights.library import find_model

HEADLINE = ("accuracy", "error_percent", "iou_mean", "miou", "map50", "map")
EXPORTED = "best.onnx"


def run(recipe: Path) -> Path:
    """Train and export by ``recipe``, going on where an earlier run stopped; nothing where all is done.

    Returns:
        The exported model.
    """
    config = read_config(recipe)
    model = config.output / EXPORTED
    if not model.is_file():
        result = train(recipe)
        release(result.best, model)
    return model


def row(config: AnyConfig) -> dict[str, Any]:
    """What the exported model of a recipe reached, measured on its held-out pictures by OpenVINO in float32."""
    model, rows = config.output / EXPORTED, RunLog(config.output / "log.jsonl").rows()
    result: dict[str, Any] = {"recipe": config.name}
    if rows:
        result |= {"epochs": rows[-1]["epoch"], "minutes": round(sum(r["seconds"] for r in rows) / 60, 1)}
    if model.is_file():
        metrics = read_card(model).metrics
        names = [f"{config.name}_val_{name}" for name in HEADLINE]
        result |= {n: round(metrics[k], 4) for n, k in zip(HEADLINE, names, strict=True) if k in metrics}
    return result


def shipped(name: str = "camvid") -> dict[str, Any]:
    """The same of a model that ships with the package, to stand beside them: its accuracy on the same pictures."""
    metrics = read_card(find_model(name)).metrics
    named = {n: f"{name}_val_{n}" for n in HEADLINE}
    return {"recipe": f"{name} (shipped)", **{n: round(metrics[k], 4) for n, k in named.items() if k in metrics}}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perception.classics.train", description=__doc__)
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="as in configs/classics/")
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    from perception.common.console import complain, print_rows

    worst, rows = 0, []
    for recipe in arguments.recipes:
        try:
            if not arguments.table_only:
                run(recipe)
            rows.append(row(read_config(recipe)))
        except PerceptionError as error:  # one recipe without its data must not cost the others
            complain(error)
            worst = max(worst, error.exit_code)
    if any("miou" in row for row in rows):
        rows.append(shipped())
    print_rows("classics", rows)
    return worst


if __name__ == "__main__":
    sys.exit(main())
