"""The pages name pictures that are there and commands that parse."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from tests.command_lines import tree

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "classics.md"
TEXT = PAGE.read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
LINES = [
    line.strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


def test_pictures_are_there_and_small() -> None:
    there = {p.name for p in (PAGE.parent / "pictures").iterdir()}
    pages = [page.read_text(encoding="utf-8") for page in PAGE.parent.glob("*.md")]
    shown = {name for page in pages for name in re.findall(r"!\[[^\]]+\]\((pictures/[^)]+)\)", page)}
    assert {Path(name).name for name in shown} == there
    sizes = [(PAGE.parent / name).stat().st_size for name in shown]
    assert max(sizes) < 60_000 and sum(sizes) < 400_000


def test_every_picture_has_the_command_that_makes_it() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    from perception.classics.tour.pictures import PICTURES as MADE

    named = set(re.findall(r"--only\s+(\w+)", TEXT))
    assert {Path(name).stem for name in PICTURES} <= named <= set(MADE)


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "perception":
        command: Any = tree()
        name, rest = "perception", words[1:]
        while hasattr(command, "resolve_command"):
            name, command, rest = command.resolve_command(click.Context(command, info_name=name), rest)
        command.make_context(name, rest)  # raises where an option or an argument is not known
    else:
        assert words[0] == "python"
        if words[1] == "-m":
            assert importlib.util.find_spec(words[2]) is not None
        else:
            assert (ROOT / words[1]).is_file()
    for word in words:
        if word.startswith("configs/"):
            assert list(ROOT.glob(word)), word


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (PAGE.parent / target).exists(), target


def test_networks_that_are_named_are_there() -> None:
    pytest.importorskip("torch")
    import perception.classics  # noqa: F401 - adds its own
    from perception.networks.classifier import CLASSIFIERS

    table = {word for row in re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)}
    methods = {"gradient", "smoothgrad", "guided", "deconvnet", "occlusion"}
    assert {name for name in table if name not in CLASSIFIERS} - methods == {"v4"}  # mini_alexnet_v1 to v4
    assert set(CLASSIFIERS) <= table
    for path in set(re.findall(r"`((?:networks|classics|perception)/[\w/]+\.py)`", TEXT)):
        assert (ROOT / path).is_file() or (ROOT / "perception" / path).is_file(), path
