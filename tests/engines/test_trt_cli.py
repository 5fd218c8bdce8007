"""`perception build` and `perception cache`, with TensorRT for RTX and without a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from perception.card import read_card
from perception.commands.main import app
from perception.engines.trt import build as build_module
from perception.engines.trt.flavour import installed
from perception.errors import ModelError, UsageError
from tests.models import write_model

pytestmark = pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system")

RTX = ["--flavour", "rtx", "--compute-capability", "80,89"]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_built_then_cached_then_listed_then_cleared(own_cache: Path, tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "colors.onnx"))
    first = run("build", model, *RTX)
    assert "colors fp16 for compute capability 80, 89" in first
    assert "built in" in first and "there is none of this model" in first
    assert (
        "frames uint8 [?, 48, 64, 3] -> class_logits float [?, 3, 12, 16]" in first and "products: 1 in fp16" in first
    )
    second = run("build", model, *RTX)
    assert "cached" in second and "built in" not in second
    assert "cached" in run("build", model, "--flavour", "rtx", "--compute-capability", "89")
    assert "built in" in run("build", model, *RTX, "--precision", "fp32")
    listed = json.loads(run("cache", "list", "--json"))
    assert [(row["model"], row["precision"], row["for"]) for row in listed] == [
        ("colors", "fp32", "80, 89"),
        ("colors", "fp16", "80, 89"),
    ]
    assert "colors" in run("cache", "list")
    (folder,) = {path.parent for path in own_cache.rglob("*.plan")}
    assert run("cache", "clear").startswith("removed 2 engines")
    assert not list(folder.glob("*.plan")) and "no engines" in run("cache", "list")


def test_without_a_gpu_and_a_target_it_is_built_for_all_from_ampere_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of the README: what it built, and that it was cached."""
    monkeypatch.setattr(build_module, "this_machine", lambda: None)
    command = ["build", "street", "--flavour", "rtx", "--precision", "fp16"]
    first = run(*command)
    assert re.search(r"street fp16 for compute capability 80, 86, 89, 120.*, [\d.]+ (kB|MB)", first)
    assert "built in" in first and "class_logits float [?, 11, 180, 240]" in first and "in fp16" in first
    assert "in fp32" not in first
    second = run(*command)
    assert "cached" in second and "built in" not in second


def test_a_truncated_engine_is_built_again(own_cache: Path, tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "colors.onnx"))
    run("build", model, *RTX)
    (plan,) = own_cache.rglob("*.plan")
    plan.write_bytes(plan.read_bytes()[:100])
    assert "cut short (100 of" in run("build", model, *RTX)
    assert "cached" in run("build", model, *RTX)


def test_another_file_of_the_same_name_is_another_engine(own_cache: Path, tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "colors.onnx"))
    run("build", model, *RTX)
    write_model(tmp_path / "colors.onnx", classes=4)
    assert "differs in graph" in run("build", model, *RTX)


def test_a_foreign_file_with_its_card(tmp_path: Path) -> None:
    model = write_model(tmp_path / "foreign.onnx", with_card=False)
    card = tmp_path / "card.yaml"
    described = read_card(write_model(tmp_path / "ours.onnx"))
    card.write_text(yaml.safe_dump(json.loads(described.model_dump_json(exclude_none=True))))
    with pytest.raises(ModelError, match="no model card"):
        run("build", str(model), *RTX)
    assert "colors fp16" in run("build", str(model), *RTX, "--card", str(card))


@pytest.mark.parametrize(
    ("arguments", "error", "fault"),
    [
        (["--compute-capability", "abc"], UsageError, "compute capability abc; it supports"),
        (["--compute-capability", "89", "--size", "65x48"], UsageError, "64x48 only"),
        (["--compute-capability", "89", "--precision", "int8"], ModelError, "this model has no int8 version; make one"),
        (["--compute-capability", "75", "--precision", "bf16"], UsageError, "75 have no bf16"),
    ],
)
def test_what_cannot_be_built(arguments: list[str], error: type[Exception], fault: str, tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "colors.onnx"))
    with pytest.raises(error, match=fault):
        run("build", model, "--flavour", "rtx", *arguments)
