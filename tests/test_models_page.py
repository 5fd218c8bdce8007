"""docs/models.md has every model that ships, with what its card says of commercial use and of its classes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perception.card import read_card

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
FOLDERS = {
    "perception-streams": ROOT / "perception" / "weights",
    "perception-weights-research": ROOT / "research" / "perception_weights_research",
}
SHIPPED = {path.stem: path for folder in FOLDERS.values() for path in folder.glob("*.onnx")}


def test_every_model_has_its_part_and_its_card() -> None:
    assert sorted(re.findall(r"^## (.*)$", PAGE, re.M)) == sorted(SHIPPED)
    assert sorted(re.findall(r"^<!-- generated: card (.*) -->$", PAGE, re.M)) == sorted(SHIPPED)
    for part in re.split(r"^## ", PAGE, flags=re.M)[1:]:
        assert f"<!-- generated: card {part.splitlines()[0]} -->" in part


@pytest.mark.parametrize("name", SHIPPED)
def test_the_table_says_what_the_card_says(name: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"](#{name})" in line]
    _, pixels, boxes, use, origin = (cell.strip() for cell in row.strip("|").split("|"))
    card = read_card(SHIPPED[name])
    assert use == {True: "yes", False: "no", None: "not said"}[card.commercial_use]
    assert FOLDERS[origin.strip("`")] == SHIPPED[name].parent
    counts = [task and len(task.classes) for task in (card.segmentation, card.detection)]
    assert [int(cell.split()[0]) if cell else None for cell in (pixels, boxes)] == counts
