"""Unknown pixels all the way: from the command line, Python and the server into every output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import perception
from perception.card import keep_in_card, read_card
from perception.commands.main import app
from perception.errors import ModelError, UsageError
from perception.postprocess.post_processing import DetectionOptions
from perception.server.app import create_app
from perception.server.settings import make_settings
from perception.server.streams.statistics import legend
from perception.server.viewers.messages import pack, unpack
from perception.sinks.coco import CocoSink
from perception.sinks.table import Table
from perception.stages.panoptic import PanopticStage
from perception.types import SourceInfo
from tests.models import calibrated, half_gray, write_model
from tests.server.test_page import components


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return calibrated(write_model(tmp_path / "sure.onnx", detection=True, name="sure"))


def test_a_prediction(model: Path) -> None:
    with perception.load_model(model, unknown=0.5) as loaded:
        found = loaded.predict(half_gray())
        class_map = found.class_map
        assert class_map is not None and class_map.unknown == 3
        assert (class_map.mask[:20] != 3).all() and (class_map.mask[-20:] == 3).all()
        assert class_map.shares[3] == pytest.approx((class_map.mask == 3).mean())
        segments = PanopticStage(loaded.card)(found).panoptic
        assert segments is not None
        assert {s.class_id for s in segments.segments} == {0}
        np.testing.assert_array_equal(segments.ids == 0, class_map.mask == 3)
        assert [row["name"] for row in legend(found, loaded.card)] == ["red"]
        drawn = perception.Annotator(loaded.card, boxes=False, legend=False)(found)
        np.testing.assert_array_equal(drawn[-20:], half_gray()[-20:])  # type: ignore[index]
        assert (drawn[:20] != half_gray()[:20]).any(2).all()  # type: ignore[index]
        rows = Table(loaded.card.model_copy(update={"detection": None})).rows(found)
        assert [row[-2] for row in rows] == ["red", "unknown"]
        off = loaded.with_options(DetectionOptions()).predict(half_gray()).class_map
        assert off is not None and off.unknown is None and off.mask.max() < 3
        nothing = loaded.with_options(DetectionOptions(unknown=1.0)).predict(half_gray()).class_map
        assert nothing is not None and (nothing.mask == 3).all() and nothing.shares.tolist() == [0, 0, 0, 1]


def test_every_output_of_annotate(tmp_path: Path, model: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "o"
    cv2.imwrite(str(source), half_gray())
    command = [
        "annotate", str(source), "-m", str(model), "--unknown", "0.5", "--jsonl", str(out / "a.jsonl"), "--rle",
        "--masks", str(out / "m"), "--images", str(out / "i"), "--hide", "boxes,legend", "-q",
    ]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    (line,) = (json.loads(text) for text in (out / "a.jsonl").read_text().splitlines())
    assert set(line["shares"]) == {"red", "unknown"} == set(line["masks"])
    assert sum(line["shares"].values()) == pytest.approx(1, abs=1e-5)
    data = (out / "m" / "a.png").read_bytes()
    palette = data[data.index(b"PLTE") + 4 :]
    assert palette[9:12] == bytes(3)  # of the id 3: black
    from perception.evaluation.pictures import read_labels

    mask = read_labels(out / "m" / "a.png")
    assert (mask[-20:] == 3).all() and line["shares"]["unknown"] == pytest.approx((mask == 3).mean(), abs=1e-5)
    (drawn,) = (cv2.imread(str(path)) for path in (out / "i").iterdir())
    np.testing.assert_allclose(drawn[-16:], half_gray()[-16:], atol=2)  # it is a JPEG


def test_coco_has_no_category_for_it(tmp_path: Path, model: Path) -> None:
    with perception.load_model(model, unknown=0.5) as loaded:
        sink = CocoSink(tmp_path / "c.json", masks=True)
        sink.open(SourceInfo("a", "images", 64, 48), loaded.card)
        sink.write(loaded.predict(half_gray()))
        sink.close()
    document = json.loads((tmp_path / "c.json").read_text())
    known = {c["id"] for c in document["categories"]}
    assert {a["category_id"] for a in document["annotations"]} <= known and len(known) == 6


def test_a_message_to_the_page(model: Path) -> None:
    with perception.load_model(model, unknown=0.5) as loaded:
        found = loaded.predict(half_gray())
        for longest in (32, 0):
            result = unpack(pack(7, found, {}, longest=longest))
            assert result.shares is not None and len(result.shares) == 4
            assert result.shares[3] == pytest.approx(0.5, abs=0.1)
            if longest:
                assert result.class_map is not None and set(np.unique(result.class_map)) == {0, 3}


def test_what_is_refused(tmp_path: Path, model: Path) -> None:
    plain = write_model(tmp_path / "plain.onnx", name="plain")
    with pytest.raises(UsageError, match=r"it was not measured how sure plain is of its pixels.*eval calibrate"):
        perception.load_model(plain, unknown=0.1)
    with perception.load_model(plain, unknown=0.0) as loaded:
        assert loaded.predict(half_gray()).class_map is not None
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"unknown must be in 0\.\.1"):
            perception.load_model(model, unknown=wrong)
    result = CliRunner().invoke(app, ["annotate", "synthetic:", "-m", str(plain), "--unknown", "0.2", "--jsonl", "-"])
    assert isinstance(result.exception, UsageError) and result.exception.exit_code == 2 and result.stdout == ""


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"id": 4, "logits": [0, 1]}, "must be 3, after those of the classes"),
        ({"id": 3, "logits": [1, 0]}, "must not fall"),
        ({"id": 3, "logits": [1]}, "at least 2"),
        ({"id": 3, "logits": [0, float("inf")]}, "finite"),
    ],
)
def test_cards_that_are_wrong(tmp_path: Path, scale: dict[str, Any], message: str) -> None:
    path = write_model(tmp_path / "m.onnx")
    before = path.read_bytes()
    task = read_card(path).segmentation
    assert task is not None
    with pytest.raises(ModelError, match=message):
        keep_in_card(path, segmentation={**task.model_dump(), "unknown": scale})
    assert path.read_bytes() == before


def test_a_class_cannot_be_called_unknown_too(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    task = read_card(path).segmentation
    assert task is not None
    classes = [{**c.model_dump(), "name": name} for c, name in zip(task.classes, ("a", "unknown", "b"), strict=True)]
    keep_in_card(path, segmentation={**task.model_dump(), "classes": classes})
    with pytest.raises(ModelError, match="'unknown'"):
        calibrated(path)


def test_the_server(tmp_path: Path, model: Path) -> None:
    picture = cv2.imencode(".png", half_gray())[1].tobytes()
    headers = {"Content-Type": "image/png", "Accept": "application/json"}
    settings = make_settings({"data_dir": tmp_path / "data", "model": str(model)})
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        plain = client.post("/v1/predict", content=picture, headers=headers).json()
        assert "unknown" not in plain["shares"]
        found = client.post("/v1/predict?unknown=0.5", content=picture, headers=headers).json()
        assert set(found["shares"]) == {"red", "unknown"}
        assert client.post("/v1/predict?unknown=1.5", content=picture, headers=headers).status_code == 422
    other = make_settings({"data_dir": tmp_path / "data2", "model": str(write_model(tmp_path / "plain.onnx"))})
    with TestClient(create_app(other), base_url="http://127.0.0.1") as client:
        refused = client.post("/v1/predict?unknown=0.5", content=picture, headers=headers)
        assert refused.status_code == 422 and "eval calibrate" in refused.json()["error"]


@pytest.mark.parametrize("sure", [True, False])
def test_the_page_knows_which_model_is_calibrated_and_where_to_begin(tmp_path: Path, sure: bool) -> None:
    path = write_model(tmp_path / "colors.onnx")
    page = components(tmp_path, model=str(calibrated(path) if sure else path), unknown=0.25)
    assert page["pv-unknown"]["value"] == 0.25  # page.css shows it where the model is calibrated
    known = page["pv-live"]["value"]
    assert known["models"]["colors"]["unknown"] == sure and known["unknown"] == 0.25
