"""What the terminal shows: no secrets, all tables, one line where a file cannot be written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.annotate import Result
from perception.commands.bench import print_tables
from perception.commands.reporter import Reporter, summary
from perception.commands.terminal import log_to_stderr, write_json
from perception.common import console
from perception.errors import SinkError, SourceError
from perception.pipeline import Report


def test_a_summary_has_no_password() -> None:
    done = Result("rtsp://bob:s3cret@camera/live?token=s3cret", {"video": "o.mp4"}, Report(frames=3, seconds=1.0))
    said = "".join(summary(done))
    assert "s3cret" not in said
    assert "rtsp://camera/..." in said


def tables() -> Iterator[tuple[str, list[dict[str, object]]]]:
    yield "first", [{"what": "a", "ms": 1.5}, {"what": "b", "ms": 2.5}]
    yield "second", [{"engine": "x", "fps": 30}]


EXPECTED = [
    {"table": "first", "what": "a", "ms": 1.5},
    {"table": "first", "what": "b", "ms": 2.5},
    {"table": "second", "engine": "x", "fps": 30},
]


@pytest.mark.parametrize("as_json", [True, False])
def test_one_file_has_all_tables(as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(tables(), as_json, tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text()) == EXPECTED
    said = capsys.readouterr().out
    if as_json:
        assert json.loads(said) == EXPECTED
    else:
        assert "first" in said and "second" in said and "{" not in said


def test_tables_that_came_before_a_fault_are_kept(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, list[dict[str, object]]]]:
        yield next(tables())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_tables(broken(), False, tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text()) == EXPECTED[:2]


def test_json_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"no/such\.json: cannot be written: No such file or directory"):
        write_json([{"a": 1}], False, tmp_path / "no" / "such.json")


def test_debug_shows_where_a_source_failed(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise SourceError("the cable was pulled", "frames")
    except SourceError as error:
        failed = Result("frames", error=error)
    logger = logging.getLogger("perception")
    handlers, level = logger.handlers, logger.level
    try:
        for debug in (False, True):
            console.stderr.cache_clear()  # the console of this capture
            log_to_stderr(debug)
            Reporter().finished(failed)
            said = capsys.readouterr().err
            assert "error: frames: the cable was pulled" in said
            assert ("Traceback" in said) == debug
    finally:
        console.stderr.cache_clear()
        logger.handlers, logger.level = handlers, level


@pytest.mark.parametrize("text", ["stage nope:X: there is no module", "a:car:b.mp4", "[/red] [bold]x :+1: [y]"])
def test_what_looks_like_an_emoji_or_markup_is_printed_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.stderr.cache_clear()
    try:
        console.complain(SourceError(text))
        Reporter().say(text)
    finally:
        console.stderr.cache_clear()
    assert capsys.readouterr().err.splitlines() == [f"error: {text}", text]
