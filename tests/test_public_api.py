"""What others build on: public names and signatures change on purpose only, and the changelog says so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import perception
from perception.common import version
from tests.public_api import lines

ROOT = Path(__file__).parents[1]
HELD = Path(__file__).with_name("public_api.txt")


def test_public_names_and_signatures_are_those_that_are_held() -> None:
    assert "\n".join(lines()) + "\n" == HELD.read_text(encoding="utf-8"), (
        "the public interface has changed: say so in CHANGELOG.md, "
        "and run `python -m tests.public_api > tests/public_api.txt`"
    )


def test_the_changelog_has_this_version_and_a_place_for_the_next() -> None:
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert titles[0] == "Unreleased"
    versions = [title.partition(" - ")[0] for title in titles[1:]]
    assert versions[0] == perception.__version__
    assert versions == sorted(versions, key=lambda version: [int(part) for part in version.split(".")], reverse=True)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", title) for title in titles[1:])


def test_the_version_names_the_revision_in_a_checkout_and_nothing_else_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    revision = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    monkeypatch.setattr(version, "_CHECKOUT", tmp_path)
    assert version.full_version() == f"{version.__version__} ({revision.stdout[:10]})"
    monkeypatch.setattr(version, "_CHECKOUT", tmp_path / "elsewhere")
    assert version.full_version() == version.__version__
