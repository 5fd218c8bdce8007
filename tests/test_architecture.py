"""The rooms of docs/architecture.md: what each may import, and no circles, checked from the code's own imports."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "perception"
TOP = "the package"
"""Modules that only start something or re-export names: they stand above all rooms."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, without ``perception.``."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


@cache
def imports() -> dict[str, set[str]]:
    """The modules that each module imports, wherever in its file: at the top, in a function, for type checking."""
    known = modules()

    def resolve(name: str) -> str:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name

    found: dict[str, set[str]] = {}
    for module, path in known.items():
        names = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and re.match(r"perception(\.|$)", node.module):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names += [alias.name for alias in node.names if re.match(r"perception(\.|$)", alias.name)]
        found[module] = {resolve(name.removeprefix("perception").lstrip(".")) for name in names} - {module}
    return found


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    if first in ("", "__main__") or module == "training.__main__":
        return TOP
    if first == "training":
        return f"training.{rest.partition('.')[0]}" if rest else "training"
    return "server.*" if first == "server" else first


def rooms() -> dict[str, set[str]]:
    """The table of the page: the rooms that each room may import, in its order."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table: dict[str, set[str]] = {}
    for row in re.findall(r"^\| `([\w.*]+)` \|.*\|([^|]*)\|$", text.partition("## Rooms")[2], re.M):
        room, allowed = row[0], row[1].strip()
        if allowed.startswith("everything above"):
            left_out = {name.strip() for name in allowed.partition(" but ")[2].split(",")} - {""}
            table[room] = {above for above in table if above.partition(".")[0] not in left_out}
        else:
            table[room] = {name.strip() for name in allowed.split(",")} - {""}
    return table


def test_rooms_are_listed_from_the_ground_up() -> None:
    seen: set[str] = set()
    for room, allowed in rooms().items():
        assert allowed <= seen, f"{room} names {sorted(allowed - seen)}, which the table lists after it"
        seen.add(room)
    there = {room_of(module) for module in modules()} - {TOP, "training"}
    assert there == seen


def test_rooms_import_only_what_the_table_allows() -> None:
    table = rooms()
    wrong = []
    for module, imported in sorted(imports().items()):
        room = room_of(module)
        if room in (TOP, "training"):
            continue
        for other in sorted(imported):
            theirs = room_of(other)
            if theirs not in (room, "training") and theirs not in table[room]:
                wrong.append(f"{module} imports {other}: {room} may not import {theirs}")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_part_of_a_circle() -> None:
    graph = {module: {other for other in imported if other} for module, imported in imports().items()}
    assert circles(graph) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d2"}, "d2": {"d"}}) == [["b", "c"], ["d", "d2"]]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others (Tarjan's components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []
    children: dict[str, set[str]] = defaultdict(set, graph)

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for child in sorted(children[node]):
            if child not in number:
                visit(child)
                lowest[node] = min(lowest[node], lowest[child])
            elif child in stack:
                lowest[node] = min(lowest[node], number[child])
        if lowest[node] == number[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(sorted(group))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return sorted(groups)
