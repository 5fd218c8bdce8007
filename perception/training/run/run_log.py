"""The log of a run: one row of numbers for each epoch, as JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class RunLog:
    """A run's ``log.jsonl``.

    Args:
        path: the file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """Read all rows that are whole; a run that was killed may have left a part of one. None without a file."""
        if not self.path.is_file():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def begin(self, epoch: int) -> None:
        """Keep only the rows of the first ``epoch`` epochs: what follows is done now, for the first time or again."""
        if not self.path.is_file():
            return
        kept = [json.dumps(row) + "\n" for row in self.rows() if row.get("epoch", 0) <= epoch]
        beside = self.path.with_name(f".{self.path.name}.tmp")
        try:
            beside.write_text("".join(kept), encoding="utf-8")
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
