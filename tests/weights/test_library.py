"""Models by name: that of the file, or that of the card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from perception.commands.main import app
from perception.errors import ModelError
from perception.weights.library import find_model, list_models, model_paths
from tests.models import write_model


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_every_name_that_is_shown_is_taken(own: Path) -> None:
    write_model(own / "downloaded-v2.onnx", name="colours")
    write_model(own / "mine.onnx", name="street")  # the file that ships keeps its name
    for model in list_models():
        assert find_model(model.name) == model.path
    assert find_model("colours") == find_model("downloaded-v2") == own / "downloaded-v2.onnx"
    assert find_model("street") == model_paths()["street"] != own / "mine.onnx"
    shown = CliRunner().invoke(app, ["models", "colours", "--json"])
    assert json.loads(shown.stdout)["path"] == str(own / "downloaded-v2.onnx")


def test_a_name_of_two_cards_is_nobody_s(own: Path) -> None:
    for stem in ("a", "b"):
        write_model(own / f"{stem}.onnx", name="colours")
    with pytest.raises(ModelError, match=r"several models say that they are 'colours': a, b"):
        find_model("colours")


def test_one_card_is_shown(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx", detection=True)
    for words in (["models", str(path)], ["models", "show", str(path)]):
        shown = CliRunner().invoke(app, words)
        assert shown.exit_code == 0, shown.output
        card = yaml.safe_load(shown.stdout)
        assert card["detection"]["classes"] == ["red", "green", "blue"]
        assert card["input"] == {"name": "frames", "width": 64, "height": 48, "resize": "stretch"}
    assert "models that can be fetched" in CliRunner().invoke(app, ["models", "catalogue"]).stdout
    wrong = CliRunner().invoke(app, ["models", "stret"])
    assert isinstance(wrong.exception, ModelError) and "did you mean street" in str(wrong.exception)
