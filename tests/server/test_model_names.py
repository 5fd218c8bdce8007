"""A model is called the same wherever the service names it, whatever its card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from perception.server.app import create_app
from tests.models import write_model
from tests.server.conftest import wait_until_ready
from tests.server.served import served


def test_a_file_of_another_name_than_its_card(make: Any, tmp_path: Path) -> None:
    model = write_model(tmp_path / "best-3.onnx", detection=True, name="colors")
    photo = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    app = create_app(make(model=str(model)))
    with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        wait_until_ready(client)
        opened = client.post("/v1/streams", json={"source": "scene"}).json()
        listed = client.get("/v1/streams").json()["streams"]
        answer = client.post("/v1/predict", content=photo, headers={"Content-Type": "image/png"}).json()
        ready = client.get("/readyz").json()
        choice = client.get("/v1/models").json()[0]
    assert [said["model"] for said in (opened, *listed, answer, ready)] == ["best-3"] * 4
    assert choice["name"] == "best-3"
