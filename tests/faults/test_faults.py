"""Every row of the fault matrix, a few times; the whole of it: `make faults`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.row import Row
from tests.faults.rows import ROWS
from tests.faults.table import BEGIN, END, HEAD, line_of, run_row, write_page

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
CHEAP = ("raising",)
"""Rows whose quick form takes but seconds."""


def ids(row: Row) -> str:
    return row.name


def holds(row: Row) -> None:
    result = run_row(row, row.quick)
    if result["refused"]:
        pytest.skip(result["refused"])
    assert result["times"]
    assert not result["wrong"], "\n".join(result["wrong"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in CHEAP], ids=ids)
def test_a_row_holds(row: Row) -> None:
    holds(row)


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in CHEAP], ids=ids)
def test_a_cheap_row_holds(row: Row) -> None:
    holds(row)


def test_the_page_shows_rows_as_they_are_with_their_dates() -> None:
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert table.startswith(HEAD)
    lines = table.removeprefix(HEAD).splitlines()
    shown = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    assert list(shown) == [row.name for row in ROWS if row.name in shown]
    assert len(shown) > len(ROWS) // 2
    for row in ROWS:
        line = shown.get(row.name, f"| {row.fault} | {row.holds} | 2026-01-01 |")
        assert re.search(r"\| \d{4}-\d\d-\d\d \|$", line)
        assert f"| {row.fault} | {row.holds} |" in line, f"{row.name} is told otherwise now: run it again"


def test_a_row_that_was_run_replaces_its_line_and_no_other(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first, second = ROWS[:2]
    outcome = {"times": 3, "wrong": [], "figures": {"a": "1|2"}, "refused": "", "date": "2026-01-02"}
    page.write_text(f"before\n{BEGIN}{END}after\n")
    write_page(page, {row.name: line_of(row, outcome) for row in (second, first)})
    write_page(page, {second.name: line_of(second, outcome | {"refused": "no permission", "date": "2026-03-04"})})
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}{HEAD}| {first.name} |") and text.endswith(f"{END}after\n")
    assert "| a: 1/2 | 2026-01-02 |" in text
    assert text.count("\n| ") == 3
    assert "| not run: no permission | 2026-03-04 |" in text
