"""How the models that ship are made: every one has its steps, and steps are done once, in order."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from perception.commands.main import app
from perception.errors import PerceptionError, UsageError
from perception.training.export.making import do, read_plans, steps_of
from perception.weights import library
from tests.command_lines import check

ROOT = Path(__file__).parents[2]
PLANS = ROOT / "configs" / "models" / "shipped.yaml"


def test_every_model_that_ships_has_its_steps() -> None:
    plans = read_plans(PLANS)
    folders = (Path(library.__file__).parent, ROOT / "research" / "perception_weights_research")
    shipped = {path.stem for folder in folders for path in folder.glob("*.onnx")}
    assert len(shipped) >= 9
    assert shipped <= set(plans)
    for name in shipped:
        *_, (model, last) = steps_of(plans, name)
        assert model == name
        assert last.makes == Path("runs/models") / f"{name}.onnx"


def test_command_lines_parse_and_take_what_steps_before_them_have_made() -> None:
    plans = read_plans(PLANS)
    for name in plans:
        made: set[str] = set()
        for _, step in steps_of(plans, name):
            assert step.run is not None
            assert check(step.run) == 1
            words = shlex.split(step.run)
            for word in words:
                if word.startswith("configs/"):
                    assert (ROOT / word).is_file(), word
            output = words[words.index("-o") + 1] if "-o" in words else None
            for word in words:
                if word.startswith("runs/") and word not in (output, str(step.makes)) and not word.endswith(".pt"):
                    assert word in made, (name, word)
            made.add(str(step.makes))


def python(text: str) -> str:
    return shlex.join([sys.executable, "-c", text])


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Path]:
    monkeypatch.chdir(tmp_path)

    def write(content: dict[str, Any]) -> Path:
        path = tmp_path / "models.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


def note(word: str, makes: str | None = None) -> dict[str, Any]:
    """A step that writes down that it ran."""
    text = f"open('log', 'a').write('{word} ')" + (f"; open('{makes}', 'w')" if makes else "")
    return {"run": python(text), **({"makes": makes} if makes else {})}


def test_steps_run_in_order_and_once(plan: Callable[[dict[str, Any]], Path]) -> None:
    path = plan(
        {
            "small": [{"model": "large"}, note("c", "made/c")],
            "large": [note("a", "made/a"), note("b")],
            "other": [{"model": "large"}, note("d", "made/d")],
        }
    )
    runner = CliRunner()
    assert runner.invoke(app, ["weights", "make", "small", "--plans", str(path), "--run"]).exit_code == 0
    assert Path("log").read_text() == "a b c "
    assert runner.invoke(app, ["weights", "make", "--plans", str(path), "--run"]).exit_code == 0
    assert Path("log").read_text() == "a b c b d "  # what is there stays; b makes nothing that could be there
    told = runner.invoke(app, ["weights", "make", "--plans", str(path), "--json"])
    rows = json.loads(told.stdout)
    assert [(row["model"], row["done"]) for row in rows] == [
        ("large", True), ("large", False), ("small", True), ("other", True),
    ]  # fmt: skip


def test_a_step_that_fails_or_makes_nothing_ends_it(plan: Callable[[dict[str, Any]], Path]) -> None:
    path = plan({"m": [{"run": python("raise SystemExit(3)"), "makes": "a"}], "n": [{"run": python(""), "makes": "b"}]})
    plans = read_plans(path)
    with pytest.raises(PerceptionError, match="exit status 3 of: "):
        do(steps_of(plans, "m")[0][1])
    with pytest.raises(PerceptionError, match="b was not made by: "):
        do(steps_of(plans, "n")[0][1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": [{"model": "b"}], "b": [{"model": "a"}]}, "a needs b needs a"),
        ({"street": [{"model": "stret"}]}, r"street: no model stret; did you mean 'street'\?"),
        ({"a": [{"run": "x", "model": "a"}]}, r"a\.0: a step has either run or model"),
        ({"a": [{"runs": "x"}]}, r"a\.0\.runs: Extra inputs are not permitted"),
        ([1], "Input should be a valid dictionary"),
    ],
)
def test_faulty_plans_are_refused(plan: Callable[[Any], Path], content: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_plans(plan(content))


def test_a_model_that_is_not_there_is_told(plan: Callable[[dict[str, Any]], Path]) -> None:
    plans = read_plans(plan({"street": [{"run": "x"}]}))
    with pytest.raises(UsageError, match=r"no model stret; did you mean 'street'\?"):
        steps_of(plans, "stret")
