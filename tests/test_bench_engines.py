"""`perception bench engines`: rows of every engine that is present, faults as rows; no figure is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perception.bench import engines
from perception.commands.main import app
from perception.engines import engine_status
from tests.models import write_model

pytestmark = pytest.mark.usefixtures("own_cache_home")


def test_every_engine_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "ENGINES", ("tensorrt", "onnxruntime"))  # a process each: two are enough
    path = str(write_model(tmp_path / "colors.onnx"))
    result = CliRunner().invoke(app, ["bench", "engines", "-m", path, "--repeats", "3", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {row["engine"] for row in rows} == {name for name in engines.ENGINES if engine_status(name)[0]}
    assert len({(row["engine"], row["precision"]) for row in rows}) == len(rows)
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"] and row["fps"] > 0 and row["streams"] >= 1
        assert row["peak_mb"] is None or 20 < row["peak_mb"] < 20_000


def test_an_engine_that_fails_or_dies_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "ENGINES", ("openvino",))
    path = write_model(tmp_path / "cut.onnx")
    path.write_bytes(path.read_bytes()[:300])
    for repeats, fault in ((2, "cut.onnx"), ("two", "ValueError")):
        rows = engines.engine_rows(str(path), repeats)  # type: ignore[arg-type]
        assert {row["engine"] for row in rows} == {"openvino"}
        assert all(fault in row["fault"] for row in rows)
