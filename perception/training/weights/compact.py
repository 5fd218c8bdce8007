"""A checkpoint small enough to keep, of another or a model: averaged weights in half, and how far the run has come."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from perception.errors import ModelError, PerceptionError
from perception.training.recipes.dense import read_config
from perception.training.run.checkpoint import load_checkpoint, save_checkpoint
from perception.training.run.loop import Trainer

KEPT = ("config", "epoch", "step", "best", "stale", "average_steps")


def compact(checkpoint: str | Path, output: str | Path) -> None:
    """Write what ``checkpoint`` needs to be exported, or to go on without its optimiser, to ``output``.

    About a seventh of the size. As ``last.pt`` of a run it is taken up by ``perception train``.

    Raises:
        ModelError: The checkpoint cannot be read.
    """
    _save(load_checkpoint(Path(checkpoint)), output)


def from_model(model: str | Path, recipe: str | Path, output: str | Path, data_root: str | Path | None = None) -> None:
    """Write the weights of a model file to ``output``, as if training by ``recipe`` had just begun with them.

    What needs a checkpoint can then do with a model: a teacher, or a network that channels are left out of.

    Args:
        model: an ``.onnx`` of ours or the name of a shipped one, see `perception.training.weights.onnx_import`.
        recipe: of the network in it.
        output: the ``.pt`` to write.
        data_root: replaces ``data.root`` of the recipe.

    Raises:
        ModelError: The model cannot be read, or is of another network.
        PerceptionError: Recipe or data are faulty.
    """
    trainer = Trainer(read_config(recipe, data_root))
    missing = trainer.start(Path(model))
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ModelError(f"not of the network in {recipe}, which also has {', '.join(missing[:5])}{more}", model)
    _save(trainer.state(), output)


def _save(state: dict[str, Any], output: str | Path) -> None:
    weights = {k: v.half() if v.is_floating_point() else v for k, v in state["average"].items()}
    save_checkpoint(Path(output), {**{k: state[k] for k in KEPT}, "average": weights})


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perception.training.weights.compact", description=__doc__)
    parser.add_argument("checkpoint", help="or, with --recipe, a model: its name or .onnx")
    parser.add_argument("output", help="the .pt to write")
    parser.add_argument("--recipe", help="of the model's network")
    parser.add_argument("--data", help="replaces data.root of the recipe")
    arguments = parser.parse_args()
    try:
        if arguments.recipe is None:
            compact(arguments.checkpoint, arguments.output)
        else:
            from_model(arguments.checkpoint, arguments.recipe, arguments.output, arguments.data)
    except PerceptionError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
