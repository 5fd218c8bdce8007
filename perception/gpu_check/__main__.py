"""``python -m perception.gpu_check [--quick] [--json-file FILE]``: `perception gpu-check` without typer and rich.

With ``--block NAME`` it is one block, in the process that it is given: how it ended is the last line, in JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from perception.gpu_check import BLOCKS, as_data, as_table, passed, run_blocks


def main(arguments: list[str] | None = None) -> int:
    """Run the check, or one block of it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perception.gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of each block: two minutes")
    parser.add_argument("--json-file", type=Path, metavar="FILE", help="write how each block ended")
    parser.add_argument("--block", choices=[block.name for block in BLOCKS], help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.block is not None:
        return _one(chosen.block, chosen.quick)
    outcomes = []
    for outcome in run_blocks(quick=chosen.quick):
        outcomes.append(outcome)
        print(f"{outcome.block}: {outcome.status}, {outcome.seconds:.0f} s", file=sys.stderr, flush=True)
    print(as_table(outcomes))
    if chosen.json_file is not None:
        chosen.json_file.write_text(json.dumps(as_data(outcomes, chosen.quick), indent=1) + "\n", encoding="utf-8")
    return 0 if passed(outcomes) else 1


def _one(name: str, quick: bool) -> int:
    from perception.gpu_check.finding import Absent, Finding

    logging.getLogger("perception").setLevel(logging.ERROR)
    try:
        from perception.gpu_check import engine_blocks, kernel_blocks, torch_block

        modules = (kernel_blocks, engine_blocks, torch_block)
        block = next(getattr(module, name) for module in modules if hasattr(module, name))
        found: Finding = block(quick)
        status, number, simulated = "PASS", found.number, found.simulated
    except Absent as missing:
        status, number, simulated = "ABSENT", str(missing), False
    except Exception as error:
        text = " ".join(str(error).split())
        status, number, simulated = "FAIL", f"{type(error).__name__}: {text}"[:400], False
    print(json.dumps({"status": status, "number": number, "simulated": simulated}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
