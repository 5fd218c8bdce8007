"""Precisions are spelled the same everywhere; what used to be written is still understood, with a note."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from perception.common.precision import PRECISIONS, parse_precision
from perception.engines import open_engine
from perception.errors import UsageError
from perception.model import load_model
from tests.models import write_model

OLD = {
    "f32": "fp32", "float32": "fp32", "F32": "fp32", "f16": "fp16", "float16": "fp16", "half": "fp16",
    "bfloat16": "bf16", "i8": "int8",
}  # fmt: skip


@pytest.mark.parametrize("name", PRECISIONS)
def test_names_are_taken_as_they_are(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_precision(name) == name == parse_precision(name.upper())
    assert not caplog.records


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_other_spellings_are_understood_with_one_line(old: str, new: str, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_precision(old) == new
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"precision {old} is now spelled {new}"


@pytest.mark.parametrize("name", ["", "fp", "fp64", "f8", "int", "32", "tf32", "none"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="auto, fp32, fp16, bf16, int8"):
        parse_precision(name)


def test_python_takes_both(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_model(tmp_path / "colors.onnx")
    for spelling in ("fp32", "f32", "float32"):
        with load_model(path, engine="openvino", precision=spelling) as model:  # type: ignore[arg-type]
            assert model.engine.precision == "fp32"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "precision f32 is now spelled fp32",
        "precision float32 is now spelled fp32",
    ]
    with pytest.raises(UsageError, match="unknown precision 'fp64'"):
        open_engine(path, load_card(path), precision="fp64")  # type: ignore[arg-type]


def load_card(path: Path):  # type: ignore[no-untyped-def]
    from perception.card import read_card

    return read_card(path)


def test_server_settings_take_both() -> None:
    pytest.importorskip("fastapi")
    from perception.server.settings import make_settings

    assert make_settings({"precision": "f16"}).precision == make_settings({"precision": "fp16"}).precision == "fp16"
    with pytest.raises(UsageError, match="precision: Input should be"):
        make_settings({"precision": "fp64"})


def test_recipes_take_both(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from perception.training.recipes.read import read_config

    recipe = Path(__file__).parents[1] / "configs" / "train" / "smoke.yaml"
    text = recipe.read_text()
    assert "precision: fp32" in text
    assert read_config(recipe).precision == "fp32"
    old = tmp_path / "old.yaml"
    old.write_text(text.replace("precision: fp32", "precision: f32"))
    assert read_config(old).precision == "fp32"


@pytest.mark.parametrize("old", ["f16", "fp16"])
def test_engine_builds_take_both(old: str) -> None:
    from perception.engines.trt.recipe import graph_precision

    assert graph_precision(old) == "fp16" == graph_precision("auto")
