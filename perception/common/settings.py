"""YAML files that set what command-line flags set."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from perception.errors import PerceptionError, UsageError

LISTED = 30
"""Names that a message lists at most."""


def load_config(path: str | Path, known: Iterable[str]) -> dict[str, Any]:
    """Read the settings in a YAML file, and check their names.

    Args:
        path: a YAML file that holds one mapping; keys may be written with dashes or underscores.
        known: the valid keys, with underscores.

    Returns:
        the mapping, keys with underscores.

    Raises:
        UsageError: the file cannot be read, is not a YAML mapping, or has a key that is not known.
    """
    known = sorted(known)
    data = read_yaml(path, "configuration")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError("the configuration must be a mapping of settings (key: value)", path)
    settings = {}
    for key, value in data.items():
        name = str(key).replace("-", "_")
        if name not in known:
            spelled = [other.replace("_", "-") for other in known]  # as in the files of configs/
            raise UsageError(f"unknown setting {key!r}{nearest(name.replace('_', '-'), spelled)}", path)
        settings[name] = value
    return settings


def _problem(error: Any) -> str:
    """Describe a YAML error and its place. Nothing of the file is quoted: it may be a password."""
    problem = re.sub(r"'[^']*'", "'...'", getattr(error, "problem", None) or "it cannot be read")
    mark = getattr(error, "problem_mark", None)
    return problem if mark is None else f"{problem}, line {mark.line + 1}, column {mark.column + 1}"


def read_yaml(path: str | Path, what: str, error: type[PerceptionError] = UsageError) -> Any:
    """Read the plain data in a YAML file, not checked yet.

    Args:
        path: the file.
        what: it is, for messages: "configuration", "card".
        error: what is raised.

    Raises:
        PerceptionError: of the kind ``error``; the file is missing, cannot be read, or is not YAML within the limits
            of `perception.common.plain_yaml`.
    """
    import yaml

    from perception.common.plain_yaml import parse_yaml

    path = Path(path)
    try:
        return parse_yaml(path.read_bytes())
    except OSError as fault:
        raise error(f"cannot read the {what}: {fault.strerror or fault}", path) from None
    except UnicodeDecodeError:
        raise error(f"the {what} is not text", path) from None
    except yaml.YAMLError as fault:
        raise error(f"the {what} is not YAML: {_problem(fault)}", path) from None
    except ValueError as fault:
        raise error(f"the {what} is not YAML that can be used: {fault}", path) from None


def names(text: str | None, known: Iterable[str] | None = None) -> list[str] | None:
    """Parse a list of names, see `split_names`; None if there is no text.

    Raises:
        UsageError: the text is malformed, or a name is not one of ``known``.
    """
    if not text:
        return None
    found = split_names(text)
    for name in found:
        if known is not None and name not in known:
            raise UsageError(f"unknown name {name!r}{nearest(name, known)}")
    return found


def split_names(text: str) -> list[str]:
    """Split a row of names at its commas; a name that contains a comma is written in double quotes, as in CSV.

    ``car,road`` are two names, and ``"tench, Tinca tinca",car`` are two as well.

    Raises:
        UsageError: the text is malformed: it has more than one line, or is longer than any list of names.
    """
    try:
        row = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise UsageError(f"invalid list of names: {error}") from None
    return [name.strip() for name in row]


def size(text: str | None) -> tuple[int, int] | None:
    """(width, height) from text such as ``640x480``; None if there is none.

    Raises:
        UsageError: something else than two whole numbers above 0.
    """
    if not text:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise UsageError(f"invalid size {text!r}: write WxH in pixels, for example 640x480")
    return int(sides[0]), int(sides[1])


def things(text: str | None) -> dict[str, list[str]] | None:
    """Parse which boxes belong to which pixels, such as ``car=car+bus+truck,pedestrian=person``; None if no text.

    Raises:
        UsageError: a part is not written like that, or names its pixels twice.
    """
    if not text:
        return None
    found: dict[str, list[str]] = {}
    for part in split_names(text):
        pixels, equals, boxes = (side.strip() for side in part.partition("="))
        kinds = [kind.strip() for kind in boxes.split("+")]
        if not (pixels and equals and all(kinds)) or pixels in found:
            raise UsageError(f"invalid things {text!r}: write PIXELS=BOX+BOX,..., for example car=car+bus+truck")
        found[pixels] = kinds
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an error message: the valid name most like ``name``, or the known names."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"; known are: {', '.join(known[:LISTED])}{more}"
