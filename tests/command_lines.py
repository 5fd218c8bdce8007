"""Command lines in texts: found, and parsed by the real command without running anything."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import typer

from perception.commands.main import app

ROOT = Path(__file__).parents[1]
_OURS = re.compile(r"^([\w./$()-]*/)?perception(:[\w-]+)?$")
_SEPARATORS = {"|", "||", "&&", ";", "&"}


@cache
def tree() -> Any:
    """The command with all that is below it. Parsing changes nothing of it, and making it takes longer than that."""
    return typer.main.get_command(app)


def parse(words: list[str]) -> Any:
    """Parse the words after ``perception``; the context of the command, which is not run.

    Raises:
        AssertionError: there is no such command.
        Exception: click's, for an unknown option, a missing argument or a value of another kind.
    """
    command: Any = tree()
    rest, path = list(words), "perception"
    if rest[:1] == ["--log-format"]:  # of every command, and before it
        assert rest[1] in ("text", "json"), rest[1]
        del rest[:2]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        default = getattr(command, "otherwise", None)
        name = default if default and rest[0] not in command.commands else rest.pop(0)
        assert name in command.commands, f"{path} has no command {name!r}"
        command, path = command.commands[name], f"{path} {name}"
    return command.make_context(path, rest)


def check(line: str, whole: bool = True) -> int:
    """Check every call of ``perception`` and ``python`` in a line of shell.

    Args:
        line: with pipes, ``&&`` and a comment where it has them.
        whole: the line is a call as it would be typed; else it may name a command only, without its arguments.

    Returns:
        How many there were.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    calls: list[list[str]] = [[]]
    for word in lexer:
        if word in _SEPARATORS:
            calls.append([])
        else:
            calls[-1].append(word)
    return sum(_check_call(words, whole) for words in calls)


def _check_call(words: list[str], whole: bool) -> int:
    for i, word in enumerate(words[:-1]):
        following = words[i + 1]
        if _OURS.match(word) and re.fullmatch(r"[a-z][a-z-]*|--version|--help|--log-format", following):
            _check_ours(words[i + 1 :], whole)
            return 1
        if re.search(r"(^|/)python3?$", word) and following == "-m" and words[i + 2].startswith("perception"):
            assert importlib.util.find_spec(words[i + 2]) is not None, words[i + 2]
            return 1
        if re.search(r"(^|/)python3?$", word) and following.endswith(".py"):
            assert (ROOT / following).is_file(), following
            return 1
    return 0


def _check_ours(words: list[str], whole: bool) -> None:
    try:
        parse(words)
    except Exception as error:
        kind = type(error).__name__
        if kind == "Exit" or (kind in ("MissingParameter", "NoArgsIsHelpError", "BadOptionUsage") and not whole):
            return  # --help and --version end here
        raise AssertionError(f"perception {' '.join(words)}: {error or kind}") from error


def shell_lines(text: str) -> list[str]:
    """The lines of code blocks of a page in Markdown, fenced as ``sh`` or indented."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    indented = re.findall(r"^(?: {4}|\t)\s*(\S.*)", rest, re.M)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()] + indented


def spans(text: str) -> list[str]:
    """What stands between backticks and begins with a command of ours, on one line or over two."""
    found = re.findall(r"(`+)((?:python -m )?perception[ .][^`]+)\1", text)
    return [" ".join(span.split()) for _, span in found]


def comment_lines(text: str) -> list[str]:
    """What comments say after ``#``, each with the lines that it goes on in."""
    comments = [match[1] for match in re.finditer(r"^\s*#+ ?(.*)", text, re.M)]
    return "\n".join(comments).replace("\\\n", " ").splitlines()


def typed(lines: list[str]) -> list[str]:
    """The lines that begin as a person would type a command of ours."""
    first = r"perception|python3?|docker|sudo|torchrun|ffmpeg|/\S+"
    return [line.strip() for line in lines if re.match(rf"\s*({first})\s", line) and "perception" in line]
