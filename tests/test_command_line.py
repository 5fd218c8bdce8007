"""One grammar for every command: options that mean the same are spelled the same, and help says what decides them."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from typer.testing import CliRunner

from perception.commands.main import app
from perception.commands.options import EngineChoice, respell_json
from tests.command_lines import parse, tree
from tests.models import write_model

ROOT = Path(__file__).parents[1]


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command and group, by the words that call it."""
    yield " ".join(("perception", *path)), command
    for name, sub in getattr(command, "commands", {}).items():
        yield from walk(sub, (*path, name))


TREE = dict(walk(tree()))
COMMANDS = {name: command for name, command in TREE.items() if not hasattr(command, "commands")}


def options(command: Any) -> dict[str, Any]:
    return {name: p for p in command.params if p.param_type_name == "option" for name in p.opts}


def test_every_command_is_a_file_of_its_own() -> None:
    files = {path.stem for path in (ROOT / "perception" / "commands").glob("*.py")}
    words = {name.split()[1] for name in COMMANDS}
    assert {"evaluate" if word == "eval" else word.replace("-", "_") for word in words} <= files
    for path in (ROOT / "perception" / "commands").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


@pytest.mark.parametrize("name", TREE)
def test_help_has_examples_that_parse(name: str) -> None:
    text = TREE[name].help
    examples = re.split(r"\[bold\]Examples?\[/bold\]", text)
    assert len(examples) == 2
    lines = [" ".join(block.split()) for block in examples[1].split("\n\n") if block.strip()]
    assert lines
    for line in lines:
        words = [shlex.split(part) for part in line.split("|")]
        (ours,) = [part[part.index("perception") :] for part in words if "perception" in part]
        assert " ".join(ours).startswith(name)
        with suppress(typer.Exit):  # of an option that lists something
            parse(ours[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_decides_every_option(name: str) -> None:
    silent = [
        option.opts[0]
        for option in COMMANDS[name].params
        if option.param_type_name == "option" and not option.required and not option.is_flag
        and option.default is None and not isinstance(option.show_default, str)
    ]  # fmt: skip
    assert not silent
    assert all(option.help for option in COMMANDS[name].params if option.name != "help")


def test_help_prints_the_defaults() -> None:
    shown = " ".join(CliRunner().invoke(app, ["annotate", "--help"], env={"COLUMNS": "200"}).output.split())
    for default in (
        "street",
        "from the model's card",
        "h264; vp9 for .webm",
        "not written",
        "10.0",
        "0.5",
        "to the end",
    ):
        assert default in shown.replace("│ │ ", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_options_come_in_company(name: str) -> None:
    there = options(COMMANDS[name])
    assert ("--device" in there) == ("--engine" in there)
    assert ("--json" in there) == ("--json-file" in there)
    if "--json" in there:
        assert there["--json"].is_flag and not there["--json-file"].is_flag


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if "--precision" in options(command)])
@pytest.mark.parametrize(
    ("given", "parsed"), [("fp16", "fp16"), ("f16", "fp16"), ("float16", "fp16"), ("int8", "int8")]
)
def test_precisions_are_spelled_the_same(name: str, given: str, parsed: str, caplog: pytest.LogCaptureFixture) -> None:
    needed: dict[str, str] = {
        "annotate": "a.mp4", "build": "street", "segmentation": "--images i --labels l",
        "detection": "--images i --annotations a.json", "panoptic": "--images i --annotations a.json",
        "classification": "--data d", "suite": "s.yaml", "calibrate": "s.yaml",
    }  # fmt: skip
    words = [*name.split()[1:], *shlex.split(needed.get(name.split()[-1], "")), "--precision", given]
    assert parse(words).params["precision"] == parsed
    assert len(caplog.records) == (given != parsed)


def test_an_unknown_precision_is_one_line() -> None:
    result = CliRunner().invoke(app, ["demo", "--precision", "fp64"])
    assert "unknown precision 'fp64'; choose one of: auto, fp32, fp16, bf16, int8" in str(result.exception)
    assert getattr(result.exception, "exit_code", None) == 2


def test_precision_in_a_file_is_parsed_like_the_flag(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("precision: float32\n")
    assert parse(["annotate", "a.mp4", "--config", str(config)]).params["precision"] == "fp32"
    config.write_text("precision: fp64\n")
    result = CliRunner().invoke(app, ["annotate", "a.mp4", "--config", str(config)])
    assert "unknown precision 'fp64'" in str(result.exception)


def test_the_note_about_an_old_spelling_leaves_standard_output_alone(tmp_path: Path) -> None:
    path = str(write_model(tmp_path / "colors.onnx"))
    command = ["annotate", "synthetic:?size=64x48&frames=2", "-m", path, "--jsonl", "-", "--precision", "f32", "-q"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert len([json.loads(line) for line in result.stdout.splitlines()]) == 2
    assert "precision f32 is now spelled fp32" in result.stderr


def test_engines_are_those_of_the_package() -> None:
    from perception.engines import EngineName
    from perception.server.settings import ServerSettings

    assert set(get_args(EngineChoice)) == set(get_args(EngineName))
    assert set(get_args(EngineChoice)) == set(get_args(ServerSettings.model_fields["engine"].annotation))


def test_live_checks_choices_like_annotate() -> None:
    for command in (["live"], ["annotate", "a.mp4"]):
        wrong = CliRunner().invoke(app, [*command, "--engine", "vapour"])
        assert wrong.exit_code == 2 and "vapour" in wrong.output and "openvino" in wrong.output


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--json", "-"], ["--json"]),
        (["--json=-"], ["--json"]),
        (["--json", "rows.json"], ["--json-file", "rows.json"]),
        (["--json=rows.txt"], ["--json-file", "rows.txt"]),
        (["-m", "a", "--json", "-", "x"], ["-m", "a", "--json", "x"]),
    ],
)
def test_json_with_a_path_still_works(old: list[str], new: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert respell_json(old) == new
    assert len(caplog.records) == 1 and "is now spelled" in caplog.records[0].getMessage()
    caplog.clear()
    assert respell_json(new) == new and not caplog.records


@pytest.mark.parametrize(
    "words", [["--json", "kernels"], ["--json"], ["--", "--json", "-"], ["--json", "--model", "a"]]
)
def test_what_may_be_an_argument_is_left_alone(words: list[str]) -> None:
    assert respell_json(words) == words


def test_old_json_as_it_was_written(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["models", "--json", "-"])
    assert {row["name"] for row in json.loads(listed.stdout)} >= {"street"}
    assert "now spelled" in listed.stderr
    file = tmp_path / "models.json"
    shown = CliRunner().invoke(app, ["models", "--json", str(file)])
    assert "street" in shown.stdout and json.loads(file.read_text()) == json.loads(listed.stdout)


@pytest.mark.parametrize("name", ["models", "doctor", "cache list"])
def test_json_is_all_that_standard_output_gets(name: str, tmp_path: Path) -> None:
    file = tmp_path / "o.json"
    result = CliRunner().invoke(app, [*name.split(), "--json", "--json-file", str(file)])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(file.read_text())


CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_keys_of_settings_files_are_flags(path: Path) -> None:
    keys = yaml.safe_load(path.read_text())
    flags = options(COMMANDS["perception live" if path.name == "live.yaml" else "perception annotate"])
    for key in set(keys) - {"limits", "sources"}:
        assert f"--{key}" in flags, key
    for key in keys.get("limits", {}):
        assert "_" not in key


def test_help_is_quick_and_light() -> None:
    import subprocess

    code = (
        "import sys, time\n"
        "from perception.commands.main import app\n"
        "for args in (['--help'], ['annotate', '--help'], ['live', '--help'], ['eval', 'detection', '--help']):\n"
        "    try: app(args)\n"
        "    except SystemExit: pass\n"
        "sys.stderr.write(f'{time.process_time()} ' + ' '.join(sys.modules))"
    )
    times, loaded = [], set()
    for _ in range(3):  # the quickest of three, in processor time: others may keep the machine busy
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, *names = done.stderr.split()
        times.append(float(seconds))
        loaded |= {name.partition(".")[0] for name in names}
    assert not loaded & {"numpy", "cv2", "av", "numba", "openvino", "onnx", "torch", "fastapi", "gradio", "yaml"}
    assert min(times) < 2.0  # four pages of help; one takes well under half a second


def test_a_warning_is_logged_before_the_command_runs() -> None:
    logging.getLogger("perception").handlers.clear()
    assert "now spelled fp32" in CliRunner().invoke(app, ["demo", "--precision", "f32", "--clip", "no"]).stderr
