"""Errors of the library speak of arguments, never of flags: they are raised in programs that have no command line."""

from __future__ import annotations

import ast
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import pytest

from perception import errors
from perception.common.console import complain, stderr
from perception.errors import PerceptionError, out_of_memory

PACKAGE = Path(__file__).parents[1] / "perception"
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, PerceptionError)}
ROOMS = [path for path in sorted(PACKAGE.rglob("*.py")) if "commands" not in path.parts]


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What errors of the package are told, as far as it is written out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in KINDS:
            for argument in node.args[:1]:
                texts = [
                    n.value for n in ast.walk(argument) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                ]
                yield node.lineno, "".join(texts)


def flags(text: str) -> list[str]:
    """Flags in a message, but for those of a whole command, which is the same for everybody."""
    text = re.sub(r"`(?:perception|pip) [^`]*`|(?:perception quantize|pip install) .*|a venv with --\S+", "", text)
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", text)


def test_messages_of_the_library_name_no_flags() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in ROOMS
        for line, text in messages(ast.parse(path.read_text(encoding="utf-8")))
        if flags(text)
    ]
    assert not wrong


def test_the_check_finds_flags() -> None:
    tree = ast.parse("raise UsageError(f'{x}: give --card or `perception cache clear --all`', path)")
    assert [flags(text) for _, text in messages(tree)] == [["--card"]]


@pytest.mark.parametrize("cause", [None, OSError("full"), PerceptionError("x"), ZeroDivisionError("division by zero")])
def test_debug_is_named_where_it_shows_something(
    cause: BaseException | None, capsys: pytest.CaptureFixture[str]
) -> None:
    error = PerceptionError("it failed; `overwrite=True` helps", "a.mp4")
    error.__cause__ = cause
    stderr.cache_clear()
    complain(error)
    stderr.cache_clear()
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: a.mp4: it failed; --overwrite helps")
    assert ("--debug" in said) == isinstance(cause, ZeroDivisionError)


def _raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        av.error.MemoryError(12, "Cannot allocate memory"),
        cv2.error("alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 786432000 bytes"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        ImportError("libopenblas.so: failed to map segment from shared object"),
        _raised(ValueError("the picture"), MemoryError()),
    ],
    ids=repr,
)
def test_no_memory_is_told_as_such(error: BaseException) -> None:
    found = out_of_memory(error, "large.png")
    assert found is not None
    assert str(found).startswith("large.png: there is not enough memory;")
    assert found.__cause__ is error


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError(errno.ENOSPC, "No space"), PerceptionError("out of memory")]
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert out_of_memory(error) is None
