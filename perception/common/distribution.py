"""The name under which the package is installed, and how to install what is missing.

The index has packages of others under the import name, so nothing may tell anybody to install that: hints name the
requirements themselves, as the metadata of the installed package lists them.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from perception.errors import UsageError

DISTRIBUTION = "perception-streams"
"""The name in pyproject.toml; what is imported is ``perception``."""


def require(module: str, extra: str, purpose: str, *names: str) -> None:
    """Check that an optional dependency is installed, before any work starts.

    Raises:
        UsageError: it is not; says how to get it, see `install_hint`.
    """
    if find_spec(module) is None:
        raise UsageError(f"{purpose} needs {module}; install it with: {install_hint(extra, *names)}")


def install_hint(extra: str, *names: str) -> str:
    """Return the command that installs those requirements of an extra that are missing, or all if none is.

    Where the package was not installed (it runs from its source tree), the command is that of the tree's folder.

    Args:
        extra: as pyproject.toml calls it.
        names: distributions of the extra that are enough for what is wanted; none: all of them.
    """
    try:
        all_of_it = requirements(extra)
    except PackageNotFoundError:
        return f"pip install '.[{extra}]'"
    needed = [text for text in all_of_it if _name(text) in names] or all_of_it
    missing = [text for text in needed if not _is_there(text)]
    return " ".join(["pip install", *(f"'{text}'" for text in missing or needed)])


def requirements(extra: str) -> list[str]:
    """Return what an extra requires, extras that it names included, as pip takes it.

    Raises:
        PackageNotFoundError: the package was not installed.
        ValueError: it has no such extra.
    """
    installed = distribution(DISTRIBUTION)
    if extra not in (installed.metadata.get_all("Provides-Extra") or []):
        raise ValueError(f"{DISTRIBUTION} has no extra {extra!r}")
    found: list[str] = []
    for line in installed.requires or []:
        text, _, marker = line.partition(";")
        condition = re.sub(r"""\s*(and\s+)?extra\s*==\s*['"]([\w.-]+)['"]\s*$""", "", marker)
        if condition == marker or not re.search(rf"""['"]{re.escape(extra)}['"]\s*$""", marker):
            continue
        own = re.fullmatch(rf"{re.escape(DISTRIBUTION)}\s*\[([^\]]*)\]", text.strip())
        if own is not None:
            found += (one for name in own[1].split(",") for one in requirements(name.strip()))
        else:
            condition = condition.strip().strip("()").replace("'", '"')
            found.append(f"{text.strip()}; {condition}" if condition else text.strip())
    return list(dict.fromkeys(found))


def _name(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None, requirement
    return name[0]


def _is_there(requirement: str) -> bool:
    try:
        distribution(_name(requirement))
    except PackageNotFoundError:
        return False
    return True
