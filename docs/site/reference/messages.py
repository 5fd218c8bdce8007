"""The messages of the package's errors, as its code has them: by room, with an ellipsis for what is filled in."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path

import perception

PACKAGE = Path(perception.__file__).parent


def room_of(path: Path) -> str:
    """The folder of a module in the package, or its own name."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def messages() -> dict[str, list[str]]:
    """The messages of each room, each once, in alphabetical order; those that are filled in whole are left out."""
    paths = sorted(PACKAGE.rglob("*.py"))
    nodes = {path: list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for path in paths}
    kinds = _errors(chain.from_iterable(nodes.values()))
    found: dict[str, set[str]] = {}
    for path, its_nodes in nodes.items():
        for node in its_nodes:
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds and node.args:
                text = " ".join(_spelled(node.args[0]).split())
                if any(character.isalpha() for character in text):
                    found.setdefault(room_of(path), set()).add(text)
    return {room: sorted(texts, key=str.casefold) for room, texts in found.items()}


def _errors(nodes: Iterable[ast.AST]) -> set[str]:
    """The names of `PerceptionError` and of all classes that are made from it."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for node in nodes
        if isinstance(node, ast.ClassDef)
    }
    names = {"PerceptionError"}
    while True:
        more = {name for name, above in bases.items() if above & names} - names
        if not more:
            return names
        names |= more


def _spelled(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_spelled(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _spelled(node.left) + _spelled(node.right)
    return "…"


def listed(rooms: str) -> str:
    """The messages of some rooms, separated by commas, as a list that is folded up."""
    known = messages()
    texts = sorted({text for room in rooms.split(",") for text in known[room.strip()]}, key=str.casefold)
    lines = "\n".join(texts)
    return f"All {len(texts)}; `…` stands for what is filled in:\n\n```text\n{lines}\n```\n"
