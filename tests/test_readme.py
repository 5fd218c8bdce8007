"""The Python of README runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import perception
from perception.commands.main import app
from perception.stages.factories import find_stage
from tests.media import make_video

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SCENE = "synthetic:?size=320x240&frames=12&fps=10"


def block(word: str) -> str:
    (found,) = [text for text in BLOCKS if word in text]
    return found


def defined(word: str) -> dict[str, Any]:
    names: dict[str, Any] = {"perception": perception}
    exec(compile(block(word), "README.md", "exec"), names)
    return names


def test_what_can_be_copied_alone_imports_what_it_needs() -> None:
    alone = [text for text in BLOCKS if "open_source" in text]
    assert len(alone) == 2 and all(text.startswith("import perception\n") for text in alone)


def test_the_sink_is_told_everything_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    sink = defined("(perception.Sink)")["Arrivals"]()
    assert len(block("(perception.Sink)").splitlines()) == 12
    wanted, before = [], 0
    with perception.open_source(SCENE) as source, perception.load_model("street-open", precision="fp32") as model:
        assert model.card.detection is not None
        car = model.card.detection.names.index("car")
        for prediction in perception.predict(source, model):
            assert prediction.detections is not None
            cars = int((prediction.detections.class_ids == car).sum())
            wanted += [f"{prediction.frame.time:.2f} s: {cars} cars"] if cars != before else []
            before = cars
    with perception.open_source(SCENE) as source, perception.load_model("street-open", precision="fp32") as model:
        report = perception.run(source, model, sinks=[sink])
    assert isinstance(report, perception.Report) and report.frames == 12
    assert capsys.readouterr().out.splitlines() == [*wanted, "the end"]


def test_a_sink_without_abort_may_fail() -> None:
    class Fails(defined("(perception.Sink)")["Arrivals"]):  # type: ignore[misc]
        def write(self, prediction: perception.Prediction) -> None:
            raise OSError("the cable was cut")

    with (
        perception.open_source(SCENE) as source,
        perception.load_model("street-open", precision="fp32") as model,
        pytest.raises(perception.PerceptionError, match="the cable was cut"),
    ):
        perception.run(source, model, sinks=[Fails()])


def test_the_stage_counts_and_keeps_cars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_stages.py").write_text(block("class CountCars"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        line = [
            "annotate",
            SCENE,
            "-m",
            "street-open",
            "--precision",
            "fp32",
            "--csv",
            "o.csv",
            "--stage",
            "my_stages:CountCars",
        ]
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 0, done.output
        rows = (tmp_path / "o.csv").read_text().splitlines()[1:]
        with perception.open_source(SCENE) as source, perception.load_model("street-open", precision="fp32") as model:
            stage: perception.Stage = find_stage("my_stages:CountCars")(model.card)
            list(perception.predict(source, model, [stage]))
        assert stage.boxes == len(rows) > 0  # type: ignore[attr-defined]
        assert all(row.split(",")[9] == "car" for row in rows)
    finally:
        sys.modules.pop("my_stages", None)


def test_the_first_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "street.mp4", frames=3)
    monkeypatch.chdir(tmp_path)
    for word in ("class_map.mask.shape", "report.stage_ms"):
        defined(word)
    assert (tmp_path / "out.mp4").is_file() and len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_every_block_is_tried() -> None:
    assert len(BLOCKS) == 4
