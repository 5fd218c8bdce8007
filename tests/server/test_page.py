"""What the page is built of, without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from perception.server.app import create_app
from perception.server.page import FOLDER
from perception.server.settings import make_settings
from tests.models import write_model


def components(tmp_path: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    """The page's components that have a name of their own: their properties, by that name."""
    app = create_app(make_settings({"data_dir": tmp_path / "data", **settings}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        config = re.search(r"window\.gradio_config = (\{.*?\});</script>", client.get("/").text, re.DOTALL)
    assert config is not None
    config = json.loads(config[1])
    named = {part["props"].get("elem_id"): part["props"] for part in config["components"]}
    return {name: props for name, props in named.items() if name}


def test_sources_are_those_that_the_operator_offers(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "colors.onnx"))
    source = components(
        tmp_path, model=model, sources={"front_door": "synthetic:"}, cameras=[2], allow=["rtsp://cam1.test/*"]
    )["pv-choices"]["value"]
    assert [tuple(choice) for choice in source["sources"]] == [
        ("front door", "server:front_door"),
        ("camera 2 of the server", "server:2"),
        ("this browser's camera", "webcam"),
        ("a video file", "file"),
        ("stream URL", "url"),
    ]
    assert source["source"] == "server:front_door"


def test_without_any_of_them_it_is_the_browsers_own_camera(tmp_path: Path) -> None:
    source = components(tmp_path, model=str(write_model(tmp_path / "colors.onnx")))["pv-choices"]["value"]
    assert [value for _, value in source["sources"]] == ["webcam", "file"]
    assert source["source"] == "webcam"


@pytest.mark.parametrize("detection", [True, False])
def test_the_page_knows_the_thresholds_of_a_model_with_boxes(tmp_path: Path, detection: bool) -> None:
    page = components(tmp_path, model=str(write_model(tmp_path / "colors.onnx", detection=detection)))
    known = page["pv-live"]["value"]
    assert known["default"] == "colors"
    assert known["problem"] is None
    assert [c["name"] for c in known["models"]["colors"]["segmentation"]] == ["red", "green", "blue"]
    assert ("score" in known["models"]["colors"]) == detection


def test_a_model_that_is_not_usable_is_told_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    known = components(tmp_path, model=str(tmp_path / "broken.onnx"))["pv-live"]["value"]
    assert known["models"] == {} and known["problem"].startswith("The model broken: ")
    assert str(tmp_path) not in known["problem"]


def test_scripts_are_served(tmp_path: Path) -> None:
    scripts = sorted(path.name for path in (FOLDER / "static").glob("*.js"))
    app = create_app(make_settings({"data_dir": tmp_path, "model": str(write_model(tmp_path / "colors.onnx"))}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for name in scripts:
            answer = client.get(f"/static/perception/{name}")
            assert answer.status_code == 200 and "javascript" in answer.headers["content-type"]
        assert client.get("/static/perception/..%2Fpage.css").status_code == 404
