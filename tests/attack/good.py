"""A client that does nothing wrong: pictures and a webcam, at a modest pace, and how long each answer took."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass, field

import cv2
import httpx
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

PAUSE_S = 0.2


@dataclass
class Served:
    """How it was served.

    Attributes:
        pictures, frames: seconds that each took.
        refused: what was not answered as it should have been.
    """

    pictures: list[float] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def medians_ms(self) -> tuple[float, float]:
        """Of pictures and of frames."""
        return 1e3 * statistics.median(self.pictures), 1e3 * statistics.median(self.frames)


class GoodClient:
    """From an address of its own, until it is told to stop."""

    def __init__(self, url: str, user: str, password: str, own: str = "127.0.0.2") -> None:
        self._url = url
        self._own = own
        self._auth = httpx.BasicAuth(user, password)
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(local_address=own), base_url=url, auth=self._auth, timeout=60
        )
        image = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
        self._picture = cv2.imencode(".jpg", image)[1].tobytes()

    def stay(self, seconds: float) -> Served:
        """Be served for so long."""
        served = Served()
        over = threading.Event()
        threads = [threading.Thread(target=work, args=(served, over)) for work in (self._pictures, self._webcam)]
        for thread in threads:
            thread.start()
        over.wait(seconds)
        over.set()
        for thread in threads:
            thread.join(90)
        return served

    def _pictures(self, served: Served, over: threading.Event) -> None:
        while not over.wait(PAUSE_S):
            began = time.perf_counter()
            try:
                answer = self._client.post("/v1/predict", content=self._picture, headers={"content-type": "image/jpeg"})
            except httpx.HTTPError as error:
                served.refused.append(f"picture: {error!r}")
                continue
            if answer.status_code != 200:
                served.refused.append(f"picture: {answer.status_code} {answer.text[:200]}")
            served.pictures.append(time.perf_counter() - began)

    def _webcam(self, served: Served, over: threading.Event) -> None:
        url = self._url.replace("http", "ws") + "/v1/webcam"
        request = next(self._auth.sync_auth_flow(httpx.Request("GET", self._url)))
        headers = {"authorization": request.headers["authorization"]}
        try:
            with connect(url, additional_headers=headers, source_address=(self._own, 0)) as webcam:
                number = 0
                while not over.wait(PAUSE_S):
                    began = time.perf_counter()
                    webcam.send(number.to_bytes(4, "little") + self._picture)
                    answer = webcam.recv(60)
                    served.frames.append(time.perf_counter() - began)
                    if not isinstance(answer, bytes):
                        served.refused.append(f"frame: {answer[:200]}")
                    number += 1
        except (WebSocketException, OSError) as error:
            served.refused.append(f"webcam: {error!r}")
