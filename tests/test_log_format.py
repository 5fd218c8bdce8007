"""Standard error as JSON: every line an object, whatever printed it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perception.commands.main import _log_format_first
from perception.commands.terminal import log_to_stderr
from perception.common import console
from perception.common.console import complain
from perception.common.log_lines import REQUEST, JsonPrinter
from perception.errors import SourceError
from tests.models import write_model

SCENE = "synthetic:?size=64x48&frames=3&fps=25"


def perception(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perception", *args]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The package's logger; afterwards, all is as it was."""
    names = ("perception", "uvicorn")
    before = [(logging.getLogger(name).handlers, logging.getLogger(name).level) for name in names]
    passed_on = logging.getLogger("uvicorn").propagate
    hook = sys.excepthook
    yield logging.getLogger("perception")
    for name, (handlers, level) in zip(names, before, strict=True):
        logging.getLogger(name).handlers, logging.getLogger(name).level = handlers, level
    logging.getLogger("uvicorn").propagate = passed_on
    sys.excepthook = hook
    console.print_json_lines(False)


def test_a_run_says_everything_as_json(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "colors.onnx", detection=True))
    words = ["annotate", SCENE, str(tmp_path / "no.mp4"), "-m", model, "-o", f"{tmp_path}/out/", "--precision", "f32"]
    done = perception(*words, "--log-format", "json")
    assert done.returncode == 3, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    assert any(line["level"] == "error" and "no.mp4" in line["message"] for line in lines)
    assert any(line["level"] == "warning" and "fp32" in line["message"] for line in lines)
    assert any(line["level"] == "info" and "3 frames" in line["message"] for line in lines)
    assert "\x1b" not in done.stderr


def test_the_error_that_ends_it_is_one_too() -> None:
    done = perception("annotate", "no.mp4", "--jsonl", "-", PERCEPTION_LOG_FORMAT="json")
    assert done.returncode == 2
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert line["level"] == "error" and line["message"].startswith("no.mp4: ")


def test_lines_of_libraries_and_tracebacks(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(as_json=True)
    token = REQUEST.set("abc-1")
    try:
        logger.warning("two\nlines of %s", "ü\u2028")
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError as error:
            logger.exception("it failed")
            REQUEST.reset(token)
            sys.excepthook(type(error), error, error.__traceback__)
        complain(SourceError("[bold] is gone", "a.mp4"))
        logging.getLogger("uvicorn.error").warning("theirs")
    finally:
        lines = [json.loads(line) for line in capsys.readouterr().err.split("\n") if line]
    assert [line["message"] for line in lines] == [
        "two\nlines of ü\u2028", "it failed", "by zero", "a.mp4: [bold] is gone", "theirs",
    ]  # fmt: skip
    assert [line["level"] for line in lines] == ["warning", "error", "critical", "error", "warning"]
    assert [line.get("request") for line in lines] == ["abc-1", "abc-1", None, None, None]
    assert ["ZeroDivisionError: by zero" in line.get("exception", "") for line in lines] == [
        False, True, True, False, False,
    ]  # fmt: skip


def test_text_names_the_request_before_a_traceback(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    token = REQUEST.set("abc-1")
    try:
        logger.warning("one line")
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logger.exception("it failed")
    finally:
        REQUEST.reset(token)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "WARNING  one line (request abc-1)"
    assert said[1] == "ERROR    it failed (request abc-1)" and said[2].startswith("Traceback")


def test_a_line_is_printed_when_it_is_whole() -> None:
    out = io.StringIO()
    printer = JsonPrinter(out, lambda: 1.5)
    printer.write("error: a\nhalf")
    printer.write(" done\n\n")
    wanted: list[Any] = [("error", "a"), ("info", "half done")]
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == wanted
    assert lines[0]["time"] == "1970-01-01T00:00:01.500Z"


@pytest.mark.parametrize(
    ("words", "moved"),
    [
        ("live --log-format json --port 0", "--log-format json live --port 0"),
        ("live --log-format=json", "--log-format=json live"),
        ("annotate a.mp4", "annotate a.mp4"),
        ("annotate -- --log-format", "annotate -- --log-format"),
        ("live --log-format", "--log-format live"),
    ],
)
def test_it_may_stand_anywhere(words: str, moved: str) -> None:
    assert _log_format_first(words.split()) == moved.split()


def test_another_format_is_refused() -> None:
    done = perception("--log-format", "xml", "models")
    assert done.returncode == 2 and "xml" in done.stderr and "Traceback" not in done.stderr
