"""``python -m tests.fuzz [FAMILY ...]``: make up inputs, have them eaten, print the table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.fuzz import campaign
from tests.fuzz.families import NAMES
from tests.fuzz.page import write_page


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("family", nargs="*", metavar="FAMILY", help=f"of {', '.join(NAMES)}; all if left out")
    parser.add_argument("--inputs", type=int, default=10_000, metavar="N", help="inputs of each family (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3600, metavar="S", help="most for each family (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds are other inputs (%(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first input (%(default)s)")
    parser.add_argument("--input", type=Path, nargs="+", default=[], metavar="FILE", help="eat these instead")
    parser.add_argument("--keep", action="store_true", help="keep one input of each fault in the corpus")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into this page")
    asked = parser.parse_args()
    unknown = sorted(set(asked.family) - set(NAMES))
    if unknown:
        parser.error(f"unknown family {unknown[0]}; there are {', '.join(NAMES)}")
    tallies = []
    for family in asked.family or NAMES:
        tally = campaign.campaign(family, asked.inputs, asked.seconds, asked.seed, asked.first, asked.input)
        tallies.append(tally)
        print(f"{family}: {tally.inputs} inputs in {tally.seconds:.0f} s, slowest {tally.slowest:.1f} s, "
              f"peak {tally.peak >> 20} MiB", flush=True)  # fmt: skip
        for place, faults in campaign.kinds(tally.faults):
            print(f"  {len(faults)} x {place} (first: {faults[0].index})", flush=True)
            if asked.keep:
                campaign.keep(faults[0], family)
    print(f"\n{campaign.table(tallies)}")
    if asked.json is not None:
        figures = [
            dict(zip(campaign.HEADINGS, tally.row(), strict=True))
            | {"seed": asked.seed, "seconds": round(tally.seconds), "peak_mib": tally.peak >> 20}
            for tally in tallies
        ]
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")
    if asked.page is not None:
        write_page(asked.page, tallies, asked.seed)
    return 1 if any(tally.faults for tally in tallies) else 0


if __name__ == "__main__":
    raise SystemExit(main())
