"""Precision ``auto``: measured the first time, remembered from then on; int8 from a file beside the model."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import onnx
import pytest

from perception.card import Quantization, read_card, write_card
from perception.common.waits import WAITS
from perception.engines import Engine, autotune, open_engine
from perception.engines.openvino import native_precisions
from perception.engines.quantised import find_quantised
from perception.errors import ModelError
from tests.models import write_model


def open_auto(path: Path, **options: Any) -> Engine:
    return open_engine(path, read_card(path), engine="openvino", **options)


def edit_times(**times: float) -> None:
    """Let all that was measured have taken so long."""
    kept = json.loads(autotune.autotune_file().read_text())
    for entry in kept.values():
        entry["ms"] = times
    autotune.autotune_file().write_text(json.dumps(kept))


def entries() -> list[dict[str, Any]]:
    return list(json.loads(autotune.autotune_file().read_text()).values())


def write_quantised(source: Path, sha256: str | None = None) -> Path:
    """A file beside ``source`` that says it is its version in eight bits."""
    model = onnx.load(str(source))
    card = read_card(source)
    facts = Quantization(
        source_sha256=sha256 or hashlib.sha256(source.read_bytes()).hexdigest(), calibrated_on=["nothing"]
    )
    write_card(model, card.model_copy(update={"name": f"{card.name}-int8", "quantization": facts}))
    path = source.with_name(f"{source.stem}-int8.onnx")
    onnx.save(model, str(path))
    return path


needs_two = pytest.mark.skipif(len(native_precisions()) < 2, reason="this CPU has one precision only")


@needs_two
def test_what_was_fastest_is_taken_without_measuring_again(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    open_auto(path).close()
    (entry,) = entries()
    assert entry["model"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(entry["ms"]) == native_precisions() and all(ms > 0 for ms in entry["ms"].values())
    for winner in native_precisions():
        times = {name: 1.0 if name == winner else 9.0 for name in native_precisions()}
        edit_times(**times)
        with open_auto(path) as engine:
            assert engine.precision == winner and winner in engine.description
        assert [e["ms"] for e in entries()] == [times]  # measuring would have replaced them


@needs_two
def test_what_is_measured_once_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_model(tmp_path / "colors.onnx")
    with caplog.at_level(logging.INFO, WAITS):
        open_auto(path).close()
        said = [record.getMessage() for record in caplog.records if record.name == WAITS]
        ways = ", ".join(native_precisions())
        assert said == [f"preparing for this machine, once: the speed of colors.onnx is measured in {ways}"]
        caplog.clear()
        open_auto(path).close()
        assert not [record for record in caplog.records if record.name == WAITS]


@needs_two
def test_a_gain_that_is_none_does_not_cost_exactness(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    open_auto(path).close()
    exact, rough = native_precisions()[0], native_precisions()[-1]
    for gain, expected in ((0.99, exact), (0.9, rough)):
        edit_times(**{name: gain if name == rough else 1.0 for name in native_precisions()})
        with open_auto(path) as engine:
            assert engine.precision == expected


@needs_two
def test_other_conditions_are_measured_for_themselves(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx", multiple=4)
    for count, options in enumerate(({}, {"threads": 1}, {"size": (128, 96)}, {"mode": "throughput"}), 1):
        open_auto(path, **options).close()
        assert len(entries()) == count
    open_auto(write_model(tmp_path / "other.onnx", classes=4)).close()
    open_auto(path).close()
    assert len(entries()) == 5


def test_what_was_asked_for_is_not_measured(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    with open_auto(path, precision="fp32") as engine:
        assert engine.precision == "fp32"
    assert not autotune.autotune_file().exists()


def test_the_quantised_version_is_one_of_the_ways(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    beside = write_quantised(path)
    open_auto(path).close()
    assert list(entries()[0]["ms"]) == [*native_precisions(), "int8"]
    edit_times(fp32=9.0, bf16=9.0, int8=1.0)
    with open_auto(path) as engine:
        assert (engine.path, engine.precision) == (beside, "int8")
    edit_times(fp32=1.0, bf16=9.0, int8=9.0)
    with open_auto(path) as engine:
        assert (engine.path, engine.precision) == (path, "fp32")
    with open_auto(beside) as engine:  # asked for by its own name
        assert (engine.path, engine.precision) == (beside, "int8")
    assert len(entries()) == 1


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_int8_takes_the_file_beside(engine: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    card = read_card(path)
    with pytest.raises(ModelError, match=r"colors\.onnx: this model has no int8 version.* perception quantize"):
        open_engine(path, card, engine=engine, precision="int8")
    beside = write_quantised(path)
    with open_engine(path, card, engine=engine, precision="int8") as opened:
        assert (opened.path, opened.precision) == (beside, "int8")


def test_a_quantised_file_of_another_model_does_not_count(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    card = read_card(path)
    assert find_quantised(path, card) is None
    beside = write_quantised(path, sha256="0" * 64)
    assert find_quantised(path, card) is None
    beside.write_bytes(b"not a model")
    assert find_quantised(path, card) is None
    beside.write_bytes(path.read_bytes())  # a model, but not a quantised one
    assert find_quantised(path, card) is None
    beside = write_quantised(path)
    found = find_quantised(path, card)
    assert found is not None and found[0] == beside and found[1].name == "colors-int8"


def test_memory_is_bounded_and_the_newest_stay() -> None:
    for number in range(autotune.KEPT + 5):
        autotune.save_times({"number": number}, {"fp32": number + 0.5})
    assert autotune.load_times({"number": 4}) is None
    assert autotune.load_times({"number": 5}) == {"fp32": 5.5}
    assert len(entries()) == autotune.KEPT
    autotune.save_times({"number": 5}, {"fp32": 1.0})  # again, so it is new
    autotune.save_times({"number": -1}, {"fp32": 1.0})
    assert autotune.load_times({"number": 5}) == {"fp32": 1.0}
    assert autotune.load_times({"number": 6}) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', "\x00"])
def test_a_damaged_memory_is_none(text: str) -> None:
    key = {"a": 1}
    autotune.autotune_file().parent.mkdir(parents=True, exist_ok=True)
    autotune.autotune_file().write_text(text)
    assert autotune.load_times(key) is None
    autotune.save_times(key, {"fp32": 2.0})
    assert autotune.load_times(key) == {"fp32": 2.0}


def test_a_place_that_cannot_be_written_is_no_fault(own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True, exist_ok=True)
    own_cache.write_text("a file where the folder should be")
    autotune.save_times({"a": 1}, {"fp32": 2.0})
    assert autotune.load_times({"a": 1}) is None
