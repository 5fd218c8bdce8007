"""``python -m perception.training CONFIG``: train by a recipe without the full command line."""

from __future__ import annotations

import argparse
import logging
import sys

from perception.errors import PerceptionError
from perception.training.run.loop import train


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perception.training", description=__doc__)
    parser.add_argument("config", help="YAML recipe")
    parser.add_argument("--data", help="replaces data.root of the recipe")
    parser.add_argument("--start", metavar="MODEL|CHECKPOINT", help="replaces network.start of the recipe")
    parser.add_argument("--no-resume", action="store_true", help="start over")
    parser.add_argument("--stop-after", type=int, metavar="EPOCHS", help="stop once this many epochs are done")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        result = train(arguments.config, not arguments.no_resume, arguments.data, arguments.stop_after, arguments.start)
    except PerceptionError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{result.epochs} epochs, best score {result.score:.4f}: {result.best}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
