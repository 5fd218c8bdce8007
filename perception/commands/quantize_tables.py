"""What a person reads of a quantisation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from perception.commands.terminal import print_rows, stderr

if TYPE_CHECKING:
    from perception.quantize.quantize import Quantised


def print_quantised(result: Quantised, output: Path, as_json: bool = False) -> None:
    """The table of before and after, or the same as JSON, and what became of the layers."""
    if as_json:
        sys.stdout.write(json.dumps(result.as_dict(), indent=2) + "\n")
        return
    print_rows("before and after", result.rows())
    facts = result.card.quantization
    assert facts is not None
    kept = f"{len(facts.float_layers)} in float: {', '.join(facts.float_layers)}" if facts.float_layers else "all"
    stderr().print(f"calibrated on {escape('; '.join(facts.calibrated_on))}, by {escape(facts.tool)}")
    stderr().print(f"{result.layers} layers in eight bits, {escape(kept)}")
    stderr().print(f"{escape(str(output))}: {escape(result.card.name)}")
