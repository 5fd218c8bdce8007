"""Smoothing on what the server shows: pictures have no past, a webcam has one where it is asked for."""

from __future__ import annotations

from typing import Any

import cv2
import httpx
import numpy as np
from websockets.sync.client import connect

from perception.server.app import create_app
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.test_webcam import ask, frame

USUAL, OTHER = (0, 112, 144), (0, 134, 122)
"""BGR between the model's green and red, nearer to red and nearer to green."""


def filled(color: tuple[int, int, int]) -> np.ndarray:
    return np.full((48, 64, 3), color, np.uint8)


def test_pictures_have_no_past_and_a_webcam_has_one(make: Any) -> None:
    with (
        served(create_app(make(stages=["smooth"]))) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        wait_until_ready(client)
        shares = []
        for color in (USUAL, USUAL, OTHER):
            content = cv2.imencode(".png", filled(color))[1].tobytes()
            headers = {"content-type": "image/png"}
            answer = client.post("/v1/predict", content=content, headers=headers, params={"smooth": True})
            shares.append(answer.json()["shares"])
        assert shares[0] == shares[1] == {"red": 1.0} and shares[2] == {"green": 1.0}
    with served(create_app(make())) as address:
        with httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            wait_until_ready(client)
        with connect(f"ws://{address}/v1/webcam", open_timeout=30, close_timeout=30) as webcam:
            for wanted in (False, True):
                ask(webcam, {"smooth": wanted})
                classes = []
                for number, color in enumerate((USUAL, USUAL, USUAL, OTHER)):
                    result = ask(webcam, frame(number, filled(color)))
                    classes.append(int(np.argmax(result.shares)))
                assert classes[:3] == [0, 0, 0]
                if not wanted:
                    assert classes[3] == 1  # with smoothing it depends on how fast this machine is
