"""What a server keeps of its clients is closed to other users of the machine, whatever the umask."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from perception.server.app import create_app
from perception.server.edge.uploads import receive_file
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.waiting import wait_for

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no modes")


def test_an_upload(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"

    before = os.umask(0)
    try:
        asyncio.run(receive_file(body(), tmp_path / "input", 10, 5, "the video"))
    finally:
        os.umask(before)
    assert (tmp_path / "input").read_bytes() == b"abc"
    assert stat.S_IMODE((tmp_path / "input").stat().st_mode) == 0o600


def test_the_data_folder(make: Any, clip: bytes, tmp_path: Path) -> None:
    data = tmp_path / "made" / "data"
    before = os.umask(0)
    try:
        (tmp_path / "made").mkdir(mode=0o755)  # not ours to close
        data.mkdir(mode=0o755)
        (data / "jobs").mkdir(mode=0o777)  # as an earlier version left it
        (data / "jobs" / "jobs.sqlite3").touch(mode=0o666)
        app = create_app(make(data_dir=data))
        with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            wait_until_ready(client)
            job = client.post("/v1/jobs", content=clip, headers={"content-type": "video/mp4"}).json()
            stream = client.post("/v1/streams", json={"source": "scene"}).json()["id"]
            recording = client.post(f"/v1/streams/{stream}/recordings").json()["id"]
            wait_for(lambda: client.get(f"/v1/recordings/{recording}").json()["frames"])
            client.post(f"/v1/recordings/{recording}/stop")
            wait_for(lambda: client.get(f"/v1/jobs/{job['id']}").json()["state"] == "done", 120)
        assert stat.S_IMODE((data / "jobs" / "jobs.sqlite3").stat().st_mode) == 0o600
        folders = [path for path in data.rglob("*") if path.is_dir()]
        assert {path.name for path in folders} == {"jobs", "recordings", job["id"]}
        assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
        assert stat.S_IMODE(data.stat().st_mode) == stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o755
    finally:
        os.umask(before)
