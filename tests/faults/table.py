"""The command line of the fault matrix, and its table."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import signal
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from tests.faults.row import NotHere, Outcome, Row, Work
from tests.faults.rows import ROWS

log = logging.getLogger(__name__)

BEGIN, END = "<!-- the table of `python -m tests.faults` -->\n", "<!-- its end -->\n"
HEAD = "| row | fault | must hold | times | wrong | figures | date |\n|---|---|---|---|---|---|---|\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the rows that are asked for; status 1 where one found something wrong."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that disks, networks and servers are taken away
    logging.getLogger("perception").setLevel(logging.CRITICAL)  # outputs that are incomplete are no news here
    results: dict[str, str] = {}
    told: list[dict[str, Any]] = []
    for row in ROWS:
        if options.rows and row.name not in options.rows:
            continue
        count = options.count or (row.quick if options.quick else row.count)
        sys.stderr.write(f"{row.name}: {row.fault}, {count}\n")
        result = run_row(row, count, options.seed)
        for line in result["wrong"]:
            sys.stderr.write(f"  wrong: {line}\n")
        told.append(result)
        results[row.name] = line_of(row, result)
        if options.json:
            Path(options.json).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        if options.page:
            write_page(Path(options.page), results)
    sys.stdout.write(HEAD + "".join(results.values()))
    sys.exit(any(result["wrong"] for result in told))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"all where none is named: {', '.join(_names())}")
    parser.add_argument("--quick", action="store_true", help="a few times each")
    parser.add_argument("--count", type=int, help="so many times, or seconds, whatever the row's own number is")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance (0)")
    parser.add_argument("--json", metavar="FILE", help="write all results there, as JSON")
    parser.add_argument("--page", metavar="FILE", help="put the rows into the table of this page")
    options = parser.parse_args(arguments)
    unknown = set(options.rows) - set(_names())
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(_names())}")
    return options


def _names() -> list[str]:
    return [row.name for row in ROWS]


def run_row(row: Row, count: int, seed: int = 0) -> dict[str, Any]:
    """Run one row in a folder of its own; what the table and the JSON say of it."""
    folder = Path(tempfile.mkdtemp(prefix=f"faults-{row.name}-"))
    began = time.monotonic()
    refused = ""
    try:
        outcome = row.run(Work(folder, count, seed))
    except NotHere as error:
        outcome, refused = Outcome(), str(error)
    except Exception as error:
        log.exception("%s", row.name)
        outcome = Outcome(wrong=[f"the row itself: {type(error).__name__}: {error}"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "row": row.name, "times": outcome.times, "wrong": outcome.wrong, "figures": outcome.figures, "seed": seed,
        "refused": refused, "seconds": round(time.monotonic() - began, 1), "date": date.today().isoformat(),
    }  # fmt: skip


def line_of(row: Row, result: dict[str, Any]) -> str:
    """The row of the table."""
    figures = "; ".join(f"{name}: {value}" for name, value in result["figures"].items())
    if result["refused"]:
        figures = f"not run: {result['refused']}"
    cells = (row.name, row.fault, row.holds, result["times"], len(result["wrong"]), figures, result["date"])
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |\n"


def write_page(page: Path, lines: dict[str, str]) -> None:
    """Put rows into the page's table; those that were not run stay as they are."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    there = {match[1]: match[0] for match in re.finditer(r"^\| ([\w-]+) \|.*\n", table, re.MULTILINE)}
    merged = {name: (lines | {k: v for k, v in there.items() if k not in lines}).get(name) for name in _names()}
    page.write_text(before + BEGIN + HEAD + "".join(filter(None, merged.values())) + END + after, encoding="utf-8")
