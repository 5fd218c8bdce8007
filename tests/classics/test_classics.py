"""The table of what the classics reached."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from typer.testing import CliRunner  # noqa: E402

from perception.card import read_card, write_card  # noqa: E402
from perception.classics.train import shipped  # noqa: E402
from perception.commands.main import app  # noqa: E402
from tests.models import build_model  # noqa: E402

RECIPE = Path(__file__).parents[2] / "configs" / "classics" / "fcn-8s-camvid.yaml"


def test_the_shipped_model_stands_beside_the_fcns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "classics" / "fcn-8s-camvid"
    run.mkdir(parents=True)
    onnx.save(build_model(), str(run / "best.onnx"))
    card = read_card(run / "best.onnx").model_copy(update={"metrics": {"fcn-8s-camvid_val_miou": 0.6789}})
    model = onnx.load(str(run / "best.onnx"))
    write_card(model, card)
    onnx.save(model, str(run / "best.onnx"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["classics", "train", str(RECIPE), "--table-only"])
    assert result.exit_code == 0
    lines = result.stdout
    assert "fcn-8s-camvid" in lines and "0.679" in lines
    assert "camvid (shipped)" in lines and f"{shipped()['miou']:.3g}" in lines
    assert shipped()["miou"] == pytest.approx(0.72, abs=0.02)
