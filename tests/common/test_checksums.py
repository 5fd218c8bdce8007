"""Files and the list of their checksums: the models that ship, and any that a user lists."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from perception.card import read_card
from perception.common.checksums import LIST
from perception.engines.quantised import find_quantised
from perception.errors import ModelError
from perception.model import load_model
from perception.weights.library import OWN, find_model, list_models
from tests.fixtures import Main
from tests.models import write_model

ROOT = Path(__file__).parents[2]
SHIPPED, RESEARCH = ROOT / "perception" / "weights", ROOT / "research" / "perception_weights_research"


def listed(folder: Path) -> dict[str, str]:
    lines = (folder / LIST).read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


@pytest.mark.parametrize("folder", [SHIPPED, RESEARCH], ids=lambda folder: folder.name)
def test_the_list_is_that_of_the_models_that_ship(folder: Path) -> None:
    """`make checksums` writes it again."""
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.onnx")}
    assert there and listed(folder) == there


@pytest.mark.parametrize("name", ["street-open", "street", "camvid"])
def test_eight_bits_that_ship_are_those_of_the_model_that_ships(name: str) -> None:
    """Else `--precision auto` and `int8` pass them over. `perception eval suite --store` keeps the two together."""
    path = find_model(name)
    found = find_quantised(path, read_card(path))
    assert found is not None and found[0] == path.with_name(f"{name}-int8.onnx")


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_model_says_so_in_one_line(seed: int, tmp_path: Path, main_here: Main) -> None:
    """One bit of the weights, which no parser would notice."""
    for name in ("camvid-int8.onnx", LIST):
        shutil.copy(RESEARCH / name, tmp_path)
    path = tmp_path / "camvid-int8.onnx"
    assert read_card(path).name == "camvid-int8"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 1000 * seed] ^= 1 << seed
    path.write_bytes(data)
    for load in (read_card, load_model):
        with pytest.raises(ModelError, match=r"camvid-int8\.onnx: the file is damaged: its SHA-256 is not the one"):
            load(path)
    told = main_here("models", str(path))
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    assert line.startswith("error:") and "damaged" in line


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
@pytest.mark.parametrize("mode", ["--text", "--binary"])
def test_a_user_s_own_list(mode: str, tmp_path: Path) -> None:
    path, other = write_model(tmp_path / "with a blank.onnx"), write_model(tmp_path / "b.onnx", name="other")
    command = ["sha256sum", mode, path.name]
    (tmp_path / LIST).write_bytes(subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert read_card(path).name == "colors"
    shutil.copy(other, path)
    with pytest.raises(ModelError, match="damaged"):
        read_card(path)
    assert read_card(other).name == "other"  # it is in no list


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"no digest\n", b"abc\n\n  \n"])
def test_a_list_that_is_none_says_nothing(text: bytes, tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.onnx")
    (tmp_path / LIST).write_bytes(text)
    assert read_card(path).name == "colors"


def test_every_model_that_ships_can_be_read() -> None:
    names = {Path(name).stem for folder in (SHIPPED, RESEARCH) for name in listed(folder)}
    models = {model.name: model for model in list_models() if model.origin != OWN}
    assert set(models) == names
    assert {name for name, model in models.items() if model.path.parent == SHIPPED} == {
        Path(name).stem for name in listed(SHIPPED)
    }
