"""A checkpoint small enough to keep: the averaged weights in half precision, and how far the run had come."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from perception.errors import PerceptionError
from perception.training.checkpoint import load_checkpoint, save_checkpoint

KEPT = ("config", "epoch", "step", "best", "stale", "average_steps")


def compact(checkpoint: str | Path, output: str | Path) -> None:
    """Write what ``checkpoint`` needs to be exported, or to go on without its optimiser, to ``output``.

    About a seventh of the size. As ``last.pt`` of a run it is taken up by ``perception train``.

    Raises:
        ModelError: The checkpoint cannot be read.
    """
    state = load_checkpoint(Path(checkpoint))
    weights = {k: v.half() if v.is_floating_point() else v for k, v in state["average"].items()}
    save_checkpoint(Path(output), {**{k: state[k] for k in KEPT}, "average": weights})


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perception.training.compact", description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("output")
    arguments = parser.parse_args()
    try:
        compact(arguments.checkpoint, arguments.output)
    except PerceptionError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
