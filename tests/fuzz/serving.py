"""A server in this process, with a tiny model, for the families that ask it things."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from perception.errors import PerceptionError
from perception.server.app import create_app
from perception.server.settings import Limits, make_settings
from tests.fuzz.family import HANG_S, Family
from tests.models import write_model
from tests.server.conftest import SCENE, wait_until_ready
from tests.server.served import served

EXPLAIN_S = 120.0
REST_S = 6.0
"""Within so long nothing is left of a job that was removed, or not received to its end."""


class ServedFamily(Family):
    """Inputs that are sent to a server; what it leaves of them in its folder of data is a fault.

    Attributes:
        address: ``127.0.0.1:PORT``.
        client: without credentials, which it does not want.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        model = write_model(folder.parent / "colors.onnx", detection=True)
        data = folder / "data"
        settings = make_settings({
            "model": str(model), "precision": "fp32", "data_dir": data, "sources": {"scene": SCENE},
            "limits": Limits(share=1).model_dump(),
        })  # fmt: skip
        self._held = ExitStack()
        self.address = self._held.enter_context(served(create_app(settings)))
        self.client = self._held.enter_context(httpx.Client(base_url=f"http://{self.address}", timeout=60))
        wait_until_ready(self.client, 120)

    def limit(self, data: bytes) -> float:
        """An explanation starts a process with torch."""
        return EXPLAIN_S if b"/v1/explain" in data.partition(b"\n")[0] else HANG_S

    def judge(self, status: int, content: bytes, kind: str) -> bool:
        """Whether an answer accepts; what is no answer of a healthy server is a fault.

        Raises:
            PerceptionError: it refuses as it should.
        """
        if status < 400:
            return True
        if content == b"Invalid HTTP request received.":
            raise PerceptionError("not HTTP")
        assert status != 500, content
        error = httpx.Response(status, content=content, headers={"content-type": kind}).json()["error"]
        assert error and "\n" not in error and len(error) < 3000, error
        raise PerceptionError(error)

    def tidy(self) -> None:
        """Remove jobs and streams, as who started them would."""
        for stream in self.streams():
            self.client.delete(f"/v1/streams/{quote(stream['id'], safe='')}")
        until = time.monotonic() + REST_S
        while time.monotonic() < until:
            for job in self.client.get("/v1/jobs").json():
                self.client.delete(f"/v1/jobs/{job['id']}")
            if not any(path.is_dir() for path in (self.folder / "data" / "jobs").iterdir()):
                return  # what was in hand has been let go of
            time.sleep(0.02)

    def streams(self) -> list[dict[str, Any]]:
        """The streams that are open."""
        found: list[dict[str, Any]] = self.client.get("/v1/streams").json()["streams"]
        return found

    def close(self) -> None:
        self._held.close()
