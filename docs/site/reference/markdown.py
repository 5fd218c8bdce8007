"""Text of docstrings and help pages as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """Text of a docstring in one line: what is code stays code, and nothing else is markup."""
    text = " ".join(text.split()).replace("``", "`")
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<\[\]{}\\])", r"\\\1", part) for part in parts)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; pipes in its cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def attributes(docstring: str, section: str = "Attributes") -> dict[str, str]:
    """The entries of a section of a Google-style docstring; ``a, b: text`` is an entry for both."""
    found: dict[str, str] = {}
    lines = re.split(rf"^\s*{section}:\n", docstring, maxsplit=1, flags=re.M)
    if len(lines) < 2:
        return found
    body = re.split(r"^\s*\w[\w ]*:\n|\n(?=\S)", lines[1], maxsplit=1, flags=re.M)[0]
    indent = len(body) - len(body.lstrip(" "))
    for entry in re.findall(rf"^ {{{indent}}}\S.*(?:\n(?: {{{indent + 1},}}\S.*|(?=\n)))*", body, re.M):
        names, _, text = entry.partition(":")
        for name in names.split(","):
            found[name.strip()] = " ".join(text.split())
    return found
