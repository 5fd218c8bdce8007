"""Blocks of code on the pages: Python compiles and runs, YAML is what the commands beside it take, JSON is JSON.

Lines of shell are parsed in tests/test_documented_commands.py; README's Python runs in tests/test_readme.py.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from perception.commands.main import app
from perception.events.settings import EventSettings
from perception.rules.settings import read_rules
from perception.training.recipes.read import parse_config
from tests.media import make_video

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"sh", "python", "yaml", "json", "text", "nginx", "caddy"}
TESTED = {"cards.md"}
"""Their YAML is checked in tests/foreign/test_cards_page.py."""
THEIRS = ({"paths"}, {"streams"})
"""Top keys of the settings of other software: MediaMTX, go2rtc."""
RULES = "lines: [{name: a, points: [[0.1, 0.5], [0.9, 0.5]]}]\n"


def blocks(page: Path, language: str = r"\S*") -> Iterator[tuple[str, str]]:
    """Language and text of the fenced blocks of a page, those in lists included."""
    text = page.read_text(encoding="utf-8")
    for indent, kind, body in re.findall(rf"^( *)```({language})\n(.*?)^\1```$", text, re.M | re.S):
        yield kind, textwrap.dedent(body) if indent else body


def yaml_blocks() -> list[Any]:
    found = [(page, text) for page in PAGES if page.name not in TESTED for _, text in blocks(page, "yaml")]
    return [pytest.param(text, id=f"{page.name}-{i}") for i, (page, text) in enumerate(found)]


def test_every_block_says_what_it_is() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.M)
        assert len(fences) % 2 == 0
        assert set(fences[::2]) <= LANGUAGES and set(fences[1::2]) <= {""}, page.name


@pytest.mark.parametrize("text", yaml_blocks())
def test_settings_are_valid(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page-of-settings.yaml").write_text(text)
    data = yaml.safe_load(text)
    for name in re.findall(r"[\w-]+\.yaml", text):
        (tmp_path / name).write_text(RULES)
    for name in re.findall(r"[\w-]+\.key", text):
        (tmp_path / name).write_text("secret-of-the-test\n")
        (tmp_path / name).chmod(0o600)
    keys = set(data)
    if keys in THEIRS:
        return
    if keys <= {"lines", "zones", "conditions"}:
        rules = read_rules(tmp_path / "page-of-settings.yaml")
        assert rules.lines or rules.zones or rules.conditions
    elif "output" in keys and "data" in keys:
        assert parse_config(data, "page").name
    elif keys <= set(EventSettings.model_fields):
        assert EventSettings.model_validate(data).targets()
    else:
        pytest.importorskip("fastapi", reason="the extra `live` is not installed")
        from perception.server.settings import make_settings, read_settings

        assert make_settings(read_settings(tmp_path / "page-of-settings.yaml"))


def test_json_is_json() -> None:
    for page in PAGES:
        for _, text in blocks(page, "json"):
            assert json.loads(text), page.name


def test_python_is_python() -> None:
    for page in PAGES:
        for _, text in blocks(page, "python"):
            compile(text, page.name, "exec")


@pytest.mark.parametrize("name", ["start.md", pytest.param("batches.md", marks=pytest.mark.slow)])
def test_python_of_the_pages_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's is in tests/test_readme.py, that of CONTRIBUTING below."""
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "street.mp4", frames=3)
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", frames=2)
    (text,) = [text for _, text in blocks(ROOT / "docs" / name, "python")]
    exec(compile(text, name, "exec"), {"__name__": "__main__"})


def test_no_other_page_has_python() -> None:
    assert {page.name for page in PAGES if list(blocks(page, "python"))} == {
        "README.md", "CONTRIBUTING.md", "start.md", "batches.md",
    }  # fmt: skip


def test_the_sink_of_contributing_writes_its_lines(tmp_path: Path) -> None:
    import perception
    from perception.sinks import Sink
    from perception.types import Prediction, SourceInfo

    (text,) = [text for _, text in blocks(ROOT / "CONTRIBUTING.md", "python")]
    names: dict[str, Any] = {"Sink": Sink, "Path": Path, "SourceInfo": SourceInfo, "Prediction": Prediction}
    exec(compile("from __future__ import annotations\n" + text, "CONTRIBUTING.md", "exec"), names)
    sink = names["LineSink"](tmp_path / "o.txt")
    with (
        perception.open_source("synthetic:?size=160x120&frames=3&fps=10") as source,
        perception.load_model("street-open", precision="fp32") as model,
    ):
        counts = [len(p.detections) for p in perception.predict(source, model) if p.detections is not None]
        with perception.open_source("synthetic:?size=160x120&frames=3&fps=10") as again:
            perception.run(again, model, sinks=[sink])
    assert (tmp_path / "o.txt").read_text().split() == [
        x for i, n in enumerate(counts) for x in (f"{i / 10:.3f}", str(n))
    ]


def test_the_rules_that_count_cars_count_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/count-cars.md has it, on a drawn street."""
    monkeypatch.chdir(tmp_path)
    (text,) = [text for _, text in blocks(ROOT / "docs" / "count-cars.md", "yaml")]
    (tmp_path / "rules.yaml").write_text(text)
    words = ["annotate", "synthetic:?size=320x240&frames=20&fps=10", "--precision", "fp32", "-o", "counted.mp4"]
    done = CliRunner().invoke(app, [*words, "--rules", "rules.yaml", "--summary", "minutes.csv"])
    assert done.exit_code == 0, done.output
    rows = [line.split(",") for line in (tmp_path / "minutes.csv").read_text().splitlines()]
    rows = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert {row["direction"] for row in rows} == {"away", "towards us"} and {row["rule"] for row in rows} == {"road"}


@pytest.mark.slow
def test_the_recipe_of_ones_own_classes_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/own-classes.md has it, on drawn pictures, for one epoch; it begins with what street-open knows."""
    pytest.importorskip("torch")
    from perception.card import read_card
    from tests.training.pictures import write_boxes, write_folder

    monkeypatch.chdir(tmp_path)
    (text,) = [text for _, text in blocks(ROOT / "docs" / "own-classes.md", "yaml")]
    root = write_folder(tmp_path / "data", train=4, val=2)
    write_boxes(root, train=4, val=2)
    for part, drawn in (("train", "boxes"), ("val", "boxes-val")):
        found = json.loads((root / drawn / "annotations.json").read_text())
        found["categories"] = [{"id": 5, "name": "forklift"}, {"id": 9, "name": "person"}]
        (root / part / "boxes.json").write_text(json.dumps(found))
    recipe = yaml.safe_load(text) | {"epochs": 1, "steps": 1, "batch": 2}
    recipe["augment"]["crops"] = recipe["augment"]["crops"][:1]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    checked = CliRunner().invoke(app, ["data", "check", "mine.yaml", "--data", "data"])
    assert checked.exit_code == 0, checked.output
    done = CliRunner().invoke(app, ["train", "mine.yaml", "--data", "data", "--start", "street-open"])
    assert done.exit_code == 0, done.output
    card = read_card(tmp_path / "runs" / "yard" / "best.onnx")
    assert card.detection is not None and card.detection.names == ["forklift", "person"]
