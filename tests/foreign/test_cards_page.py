"""docs/cards.md has every key of a card and of its adapter, and its examples are valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

import perception.card
import perception.foreign.adapter
from perception.card import ModelCard, shipped_cards, validate_card
from perception.commands.main import app
from perception.errors import ModelError
from perception.foreign.adapter import ForeignCard
from perception.foreign.formats import FORMATS, KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "cards.md").read_text(encoding="utf-8")
TABLES = {
    name: [[cell.strip() for cell in row.split(" | ")] for row in re.findall(r"^\| (`.*) \|$", table, re.M)]
    for name, table in re.findall(r"<!-- keys: (\w+) -->\n((?:\|.*\n)+)", PAGE)
}


def sections(model: type[BaseModel], found: dict[str, type[BaseModel]] | None = None) -> dict[str, type[BaseModel]]:
    """Every class of settings that a card may hold, by its name."""
    found = {} if found is None else found
    found[model.__name__] = model

    def visit(annotation: Any) -> None:
        is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        if is_section and annotation.__name__ not in found:
            sections(annotation, found)
        for inner in get_args(annotation):
            visit(inner)

    for field in model.model_fields.values():
        visit(field.annotation)
    return found


SECTIONS = {name: model for name, model in sections(ForeignCard).items() if name != "ForeignCard"} | {
    "ModelCard": ModelCard
}


def choices(annotation: Any) -> set[str]:
    if get_origin(annotation) is Literal:
        return set(map(str, get_args(annotation)))
    return set().union(*(choices(inner) for inner in get_args(annotation)))


def spelled(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, (list, tuple, dict, str)) and not default:
        return "empty"
    if isinstance(default, (list, tuple)):
        return ", ".join(map(spelled, default))
    return (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def test_every_section_has_its_table() -> None:
    assert set(TABLES) == set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_table_has_every_key_with_its_default_and_its_choices(name: str) -> None:
    fields = SECTIONS[name].model_fields
    assert {row[0].strip("`") for row in TABLES[name]} == set(fields)
    for key, value, default, meaning in TABLES[name]:
        field = fields[key.strip("`")]
        wanted = "needed" if field.is_required() else spelled(field.get_default(call_default_factory=True))
        assert default == wanted, key
        assert choices(field.annotation) <= set(re.findall(r"[\w-]+", value)), key
        assert meaning


def test_the_examples_are_valid_and_use_what_the_page_explains() -> None:
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert len(examples) >= 4
    for data in examples:
        assert validate_card(data, "docs/cards.md", ForeignCard if "adapter" in data else ModelCard).tasks
    assert {"detection", "segmentation"} <= {task for data in examples for task in data}


def test_all_formats_are_listed_with_cards_that_ship() -> None:
    adapter = SECTIONS["Adapter"].model_fields
    for task, key in KEYS.items():
        kinds = {
            choice
            for model in sections(SECTIONS["Adapter"]).values()
            if model.__name__ in str(adapter[task].annotation)
            for choice in choices(model.model_fields[key].annotation)
        }
        assert {f.name for f in FORMATS if f.task == task} == kinds
    assert {f.card for f in FORMATS if f.card} == set(shipped_cards())
    for form in FORMATS:
        if form.card:
            section = yaml.safe_load(shipped_cards()[form.card].read_text())["adapter"][form.task]
            assert section[KEYS[form.task]] == form.name
    listed = CliRunner().invoke(app, ["adapt", "--list-formats"])
    assert listed.exit_code == 0
    assert all(f.name in listed.stdout and f.card in listed.stdout for f in FORMATS)
    assert all(f"`{name}`" in PAGE for name in shipped_cards())


def test_a_card_of_another_name_is_told() -> None:
    with pytest.raises(ModelError, match=r"yolov7: no card is called that; did you mean 'yolov8'"):
        perception.foreign.adapter.read_foreign_card("yolov7")
    assert perception.foreign.adapter.read_foreign_card(Path("yolov8")) is not None
