"""What the terminal is told: no secrets, all tables, one line where a file cannot be written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.annotate import Result
from perception.commands.terminal import Reporter, print_rows, print_tables, summary
from perception.errors import SinkError, SourceError
from perception.pipeline import Report


def test_a_summary_has_no_password() -> None:
    done = Result("rtsp://bob:s3cret@camera/live?token=s3cret", {"video": "o.mp4"}, Report(frames=3, seconds=1.0))
    assert "s3cret" not in summary(done)
    assert "rtsp://camera/..." in summary(done)


def tables() -> Iterator[tuple[str, list[dict[str, object]]]]:
    yield "first", [{"what": "a", "ms": 1.5}, {"what": "b", "ms": 2.5}]
    yield "second", [{"engine": "x", "fps": 30}]


EXPECTED = [
    {"table": "first", "what": "a", "ms": 1.5},
    {"table": "first", "what": "b", "ms": 2.5},
    {"table": "second", "engine": "x", "fps": 30},
]


def test_one_file_has_all_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(tables(), tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text()) == EXPECTED
    capsys.readouterr()
    print_tables(tables(), Path("-"))
    assert json.loads(capsys.readouterr().out) == EXPECTED


def test_tables_that_came_before_a_fault_are_kept(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, list[dict[str, object]]]]:
        yield next(tables())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_tables(broken(), tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text()) == EXPECTED[:2]


def test_json_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"no/such\.json: cannot be written: No such file or directory"):
        print_rows("x", [{"a": 1}], tmp_path / "no" / "such.json")


def test_debug_shows_where_a_source_failed(capsys: pytest.CaptureFixture[str]) -> None:
    from perception.commands import terminal as show

    try:
        raise SourceError("the cable was pulled", "frames")
    except SourceError as error:
        failed = Result("frames", error=error)
    logger = logging.getLogger("perception")
    handlers, level = logger.handlers, logger.level
    try:
        for debug in (False, True):
            show.stderr.cache_clear()  # the console of this capture
            show.log_to_stderr(debug)
            Reporter().finished(failed)
            said = capsys.readouterr().err
            assert "error: frames: the cable was pulled" in said
            assert ("Traceback" in said) == debug
    finally:
        show.stderr.cache_clear()
        logger.handlers, logger.level = handlers, level
