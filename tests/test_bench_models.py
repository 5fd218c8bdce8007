"""`perception bench models`: a row for each network, at its own size; no figure is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perception.bench import run_bench
from perception.commands.main import app
from perception.errors import PerceptionError
from tests.models import write_model

pytestmark = pytest.mark.usefixtures("own_cache_home")


def test_each_network_has_a_row_beside_the_first(tmp_path: Path) -> None:
    a, b = (str(write_model(tmp_path / f"{name}.onnx")) for name in "ab")
    options = ["--engine", "openvino", "--precision", "fp32", "--repeats", "2", "--json"]
    arguments = ["bench", "models", "-m", a, "--against", b, "--against", "street-int8", *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["model"] for row in rows] == [a, b, "street-int8"]
    assert rows[0]["times"] == 1.0
    assert rows[2]["input"] == "480x360"
    for row in rows:
        assert row["engine"] == "openvino" and 0 < row["p50_ms"] <= row["p99_ms"] and row["times"] > 0
        assert row["times"] == pytest.approx(row["p50_ms"] / rows[0]["p50_ms"], rel=0.1)


@pytest.mark.parametrize(
    ("part", "against", "told"),
    [
        ("models", [], "against=MODEL"),
        ("engines", ["street"], "belongs to the part 'models'"),
        ("models", ["no-such-model"], "no-such-model"),
        ("mine.onnx", [], "'mine.onnx' is no benchmark but a model: `model=mine.onnx`"),
    ],
)
def test_what_is_missing_is_told(part: str, against: list[str], told: str, tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "colors.onnx"))
    with pytest.raises(PerceptionError, match=told):
        list(run_bench([part], model=model, against=against, repeats=1))
