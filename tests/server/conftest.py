"""A running server with a tiny model, shared by the tests that only ask it things."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from perception.model import load_model
from perception.server.app import create_app
from perception.server.inference.scheduler import Scheduler
from perception.server.settings import ServerSettings, make_settings
from tests.media import make_video
from tests.models import write_model
from tests.server.served import served
from tests.server.threads import NewThreads
from tests.server.waiting import wait_for

SCENE = "synthetic:?size=64x48&frames=40&fps=25"


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does segmentation and detection by colours, see `tests.models`."""
    return write_model(tmp_path_factory.mktemp("models") / "colors.onnx", detection=True)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video of 40 frames, each with its number."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    make_video(path, frames=40)
    return path.read_bytes()


@pytest.fixture(scope="session")
def make(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Settings with a tiny model and a folder of their own; arguments replace or add.

    Tests ask for what is refused thousands of times, which a server would soon delay: `tests.server.test_tarpit`.
    """

    def made(**values: Any) -> ServerSettings:
        folder = tmp_path_factory.mktemp("data")
        limits = {"refusals_per_s": 1e6, "connections_per_s": 1e6, **values.pop("limits", {})}
        values = {"model": str(colors), "data_dir": folder, "sources": {"scene": SCENE}, "limits": limits, **values}
        return make_settings(values)

    return made


@pytest.fixture(scope="package")
def server(make: Any) -> Iterator[httpx.Client]:
    """A client of a server without credentials, whose model is loaded."""
    with served(create_app(make())) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        wait_until_ready(client)
        yield client


def wait_until_ready(client: httpx.Client, seconds: float = 60, path: str = "/readyz", **options: Any) -> None:
    """Return once the default model is loaded."""
    until = time.monotonic() + seconds
    while client.get(path, **options).status_code != 200:
        assert time.monotonic() < until, client.get(path, **options).text
        time.sleep(0.05)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """Of a model that tells white from black."""
    path = write_model(tmp_path_factory.mktemp("models") / "m.onnx", classes=["white", "black"], detection=True)
    with load_model(path, precision="fp32") as model, Scheduler(model) as made:
        yield made


@pytest.fixture
def no_stream_is_left_behind() -> Iterator[None]:
    """Streams end their threads."""
    threads = NewThreads()
    yield
    wait_for(lambda: not threads.named("perception-capture", "perception-stream"))
