"""The table in docs/fuzzing.md."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.campaign import Tally, table

_BETWEEN = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end of the table -->)", re.DOTALL)


def write_page(path: Path, tallies: Sequence[Tally], seed: int) -> None:
    """Replace the table of a page; families that were not tried keep their rows."""
    text = path.read_text(encoding="utf-8")
    found = _BETWEEN.search(text)
    if found is None:
        raise ValueError(f"{path} has no place for the table")
    tried = {tally.family for tally in tallies}
    before = {line.split("|")[1].strip(): line for line in found.group().splitlines() if line.count("|") > 9}
    made = table(tallies).splitlines()
    kept = [line for name, line in before.items() if name not in tried | {"family", "---"}]
    rows = sorted([*made[2:], *kept])
    day = datetime.date.today().isoformat()
    new = "\n".join((f"\nMeasured on {day}, seed {seed}.\n", *made[:2], *rows, "", ""))
    path.write_text(text[: found.start()] + new + text[found.end() :], encoding="utf-8")
