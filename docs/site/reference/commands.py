"""Every command with its arguments and options, from what its ``--help`` is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from perception.commands.main import app
from reference.markdown import plain, table


def commands() -> str:
    """All commands, in alphabetical order, as sections of a page."""
    return "\n".join(_sections(typer.main.get_command(app), "perception", None))


def _sections(command: Any, path: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=path.rpartition(" ")[2], parent=parent)
    yield f"## `{path}`\n" if parent is not None else "## All commands\n"
    yield _text(command.help or "")
    yield f"```text\n{context.get_usage()}\n```\n"
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = None if getattr(parameter, "hidden", False) else parameter.get_help_record(context)
        if record is not None:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            title = getattr(parameter, "rich_help_panel", None) or kind
            panels.setdefault(title, []).append((f"`{record[0]}`", plain(_unmarked(record[1]))))
    for title, rows in panels.items():
        yield table((title, ""), rows)
    inner = {name: found for name, found in sorted(getattr(command, "commands", {}).items()) if not found.hidden}
    for name, found in inner.items():
        yield from _sections(found, f"{path} {name}", context)


def _unmarked(text: str) -> str:
    return re.sub(r"\[/?(?:bold|italic|dim)\]", "", text)


def _text(text: str) -> str:
    """What a command says of itself; its examples become one block of code."""
    words, *examples = re.split(r"\[bold\]Examples?\[/bold\]", text.replace("\f", ""))
    parts = [plain(_unmarked(paragraph)) for paragraph in re.split(r"\n\s*\n", words.strip())]
    if examples:
        lines = [" ".join(example.split()) for example in re.split(r"\n\s*\n", examples[0].strip())]
        parts.append("```sh\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts) + "\n"
