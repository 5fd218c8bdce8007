"""Uploaded videos over HTTP: what becomes of them, what is left of them, and what a restart makes of them."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import httpx
import pytest

from perception.server.app import create_app
from perception.server.edge import uploads
from perception.server.jobs.store import JobStore
from perception.server.metrics import Metrics
from perception.server.settings import Limits
from tests.media import make_video, read_stamp
from tests.models import solid
from tests.server.conftest import wait_until_ready
from tests.server.served import served

pytestmark = pytest.mark.timeout(600)

VIDEO = {"content-type": "video/mp4"}
LONG = 1500


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Enough frames to be caught in the middle of."""
    path = tmp_path_factory.mktemp("media") / "long.mp4"
    make_video(path, frames=LONG, size_wh=(160, 120), images=(solid("red", 160, 120) for _ in range(LONG)))
    return path.read_bytes()


def until(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """What ``condition`` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def ended(client: httpx.Client, address: str) -> dict:
    """The job, once nothing changes any more."""
    return until(lambda: job if (job := client.get(address).json())["state"] in ("done", "failed") else None)


def test_a_video_becomes_a_video_and_its_data(server: httpx.Client, clip: bytes, tmp_path: Path) -> None:
    params = {"name": "../../etc/My street.mp4", "masks": False, "boxes": False, "legend": False, "classes": "red"}
    accepted = server.post("/v1/jobs", content=clip, headers=VIDEO, params=params)
    assert accepted.status_code == 202, accepted.text
    address = accepted.headers["location"]
    assert address == f"/v1/jobs/{accepted.json()['id']}"
    job = ended(server, address)
    assert (job["state"], job["name"], job["model"], job["error"]) == ("done", "My street.mp4", "colors", None)
    assert job["progress"] == {"frames": 40, "total": 40}
    assert job["fps"] > 0
    assert job["created"] <= job["updated"] < job["expires"]

    video = server.get(job["results"]["video"])
    assert video.headers["content-type"] == "video/mp4"
    assert "My%20street-annotated.mp4" in video.headers["content-disposition"]
    (tmp_path / "video.mp4").write_bytes(video.content)
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert [read_stamp(f.to_ndarray(format="bgr24")) for f in container.decode(video=0)] == list(range(40))
    part = server.get(job["results"]["video"], headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, video.content[10:20])

    lines = [json.loads(line) for line in server.get(job["results"]["jsonl"]).text.splitlines()]
    assert [line["index"] for line in lines] == list(range(40))
    assert {line["source"] for line in lines} == {"My street.mp4"}  # no path of the server's

    assert job["id"] in {j["id"] for j in server.get("/v1/jobs").json()}
    assert server.delete(address).status_code == 204
    assert server.get(address).status_code == server.get(job["results"]["video"]).status_code == 404
    assert server.delete(address).status_code == 404


@pytest.mark.parametrize(
    ("data", "options", "status", "says"),
    [
        (b"", {}, 422, "empty"),
        (b"no video at all", {}, 422, "not a video"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", {}, 422, "not a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", {}, 422, "not a video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), {}, 422, "not a video"),
        (b"x", {"headers": {"content-type": "image/png"}}, 415, "video/*"),
        (b"x", {"params": {"model": "nothing"}}, 404, "nothing"),
        (b"x", {"params": {"classes": "unicorn"}}, 422, "unicorn"),
        (b"x", {"params": {"opacity": "7"}}, 422, "opacity"),
        (b"x", {"params": {"name": "x" * 301}}, 422, "name"),
    ],
)
def test_what_is_refused_leaves_nothing(
    server: httpx.Client, data: bytes, options: dict, status: int, says: str
) -> None:
    before = server.get("/v1/jobs").json()
    answer = server.post("/v1/jobs", content=data, **{"headers": VIDEO, **options})
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert says in answer.json()["error"]
    assert "/jobs/" not in answer.json()["error"]  # no path of the server's
    assert server.get("/v1/jobs").json() == before


def test_ids_are_not_paths(server: httpx.Client) -> None:
    for wrong in ("x", "..%2f..%2fetc", "0" * 31, "g" * 32):
        assert server.get(f"/v1/jobs/{wrong}").status_code in (404, 422)
        assert server.get(f"/v1/jobs/{wrong}/video").status_code in (404, 422)
    assert server.get(f"/v1/jobs/{'0' * 32}").status_code == 404
    assert server.get(f"/v1/jobs/{'0' * 32}/input").status_code == 422


@pytest.fixture(scope="module")
def narrow(make: Any) -> Iterator[tuple[httpx.Client, Path]]:
    """A server with small limits, and its folder of jobs."""
    limits = {"upload_bytes": 1_000_000, "upload_seconds": 30, "video_pixels": 320 * 240, "jobs_waiting": 2}
    settings = make(limits=limits)
    with served(create_app(settings)) as at, httpx.Client(base_url=f"http://{at}", timeout=60) as client:
        wait_until_ready(client)
        yield client, settings.folder / "jobs"


def test_limits_of_size(narrow: tuple[httpx.Client, Path], tmp_path: Path) -> None:
    client, folder = narrow
    for content in (b"x" * 1_000_001, (b"x" * 300_000 for _ in range(4))):
        answer = client.post("/v1/jobs", content=content, headers=VIDEO)
        assert answer.status_code == 413
        assert "1 MB" in answer.json()["error"]
    make_video(tmp_path / "large.mp4", frames=2, size_wh=(322, 240))
    make_video(tmp_path / "long.mp4", frames=2, times=[0.0, 31.0])
    for name, says in (("large", "322x240"), ("long", "lasts 3")):
        answer = client.post("/v1/jobs", content=(tmp_path / f"{name}.mp4").read_bytes(), headers=VIDEO)
        assert answer.status_code == 413
        assert says in answer.json()["error"]
    assert [p.name for p in folder.iterdir() if p.is_dir()] == []


def test_jobs_that_wait_have_a_limit_and_one_that_runs_can_be_ended(make: Any, long_clip: bytes) -> None:
    settings = make(limits={"jobs_waiting": 2, "share": 1})
    with served(create_app(settings)) as at, httpx.Client(base_url=f"http://{at}", timeout=60) as client:
        first, second = (client.post("/v1/jobs", content=long_clip, headers=VIDEO) for _ in range(2))
        assert (first.status_code, second.status_code) == (202, 202)
        refused = client.post("/v1/jobs", content=long_clip, headers=VIDEO)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
        address = first.headers["location"]
        until(lambda: client.get(address).json()["progress"]["frames"] > 0)
        early = client.get(f"{address}/video")
        assert early.status_code == 409
        assert "running" in early.json()["error"]
        assert client.delete(second.headers["location"]).status_code == 204
        assert client.delete(address).status_code == 204
        folder = settings.folder / "jobs"
        until(lambda: not [p for p in folder.iterdir() if p.is_dir()])
        until(lambda: "perception_jobs_waiting 0.0" in client.get("/metrics").text)
        assert client.get("/v1/jobs").json() == []


def test_a_connection_that_ends_in_the_middle(narrow: tuple[httpx.Client, Path], clip: bytes) -> None:
    client, folder = narrow
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        head = ["POST /v1/jobs HTTP/1.1", "Host: localhost", "Content-Type: video/mp4", f"Content-Length: {len(clip)}"]
        connection.sendall("\r\n".join([*head, "", ""]).encode() + clip[: len(clip) // 2])
        until(lambda: [p for p in folder.iterdir() if p.is_dir()])
    until(lambda: not [p for p in folder.iterdir() if p.is_dir()])
    assert client.get("/v1/jobs").json() == []


def test_a_video_that_is_longer_than_its_header_says(narrow: tuple[httpx.Client, Path], tmp_path: Path) -> None:
    """The duration is in one place of the file and the frames are in others."""
    client, folder = narrow
    path = tmp_path / "liar.mkv"
    make_video(path, frames=40, times=[float(i) for i in range(40)])
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88")  # EBML: Duration, 8 bytes of float, in milliseconds
    data[at + 3 : at + 11] = struct.pack(">d", 1000.0)
    accepted = client.post("/v1/jobs", content=bytes(data), headers=VIDEO, params={"name": "liar.mkv"})
    assert accepted.status_code == 202, accepted.text
    job = ended(client, accepted.headers["location"])
    assert job["state"] == "failed"
    assert "liar.mkv: the video is longer than the limit of 30 s" in job["error"]
    assert job["results"] == {}
    assert client.get(f"{accepted.headers['location']}/video").status_code == 409
    assert list((folder / job["id"]).iterdir()) == []
    assert client.delete(accepted.headers["location"]).status_code == 204


def test_a_full_disk(server: httpx.Client, clip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    before = server.get("/v1/jobs").json()
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    answer = server.post("/v1/jobs", content=clip, headers=VIDEO)
    assert answer.status_code == 507
    assert "disk is full" in answer.json()["error"]
    assert server.get("/v1/jobs").json() == before


START = """
import sys
from perception.server.app import serve
from perception.server.settings import make_settings
settings = make_settings({"model": sys.argv[1], "data_dir": sys.argv[2], "port": 0})
serve(settings, started=lambda url: print(url, flush=True))
"""


def start(model: Path, folder: Path) -> tuple[subprocess.Popen[str], httpx.Client]:
    """A server in a process of its own, and a client of it."""
    command = [sys.executable, "-c", START, str(model), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, process.wait(10)
    return process, httpx.Client(base_url=url, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_is_killed_loses_no_job(colors: Path, tmp_path: Path, long_clip: bytes) -> None:
    process, client = start(colors, tmp_path)
    try:
        address = client.post("/v1/jobs", content=long_clip, headers=VIDEO).headers["location"]
        until(lambda: client.get(address).json()["state"] == "running")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    process, client = start(colors, tmp_path)
    try:
        job = ended(client, address)
        assert (job["state"], job["progress"]) == ("done", {"frames": LONG, "total": LONG})
        # Ended as a person ends it.
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(30)
    assert {p.name for p in (tmp_path / "jobs" / job["id"]).iterdir()} == {"output.mp4", "output.jsonl"}


def test_a_server_that_stops_puts_its_job_back(make: Any, long_clip: bytes) -> None:
    settings = make()
    with served(create_app(settings)) as at, httpx.Client(base_url=f"http://{at}", timeout=60) as client:
        address = client.post("/v1/jobs", content=long_clip, headers=VIDEO).headers["location"]
        until(lambda: client.get(address).json()["progress"]["frames"] > 0)
    store = JobStore(settings.folder / "jobs", Limits(), Metrics())
    try:
        (job,) = store.all()
        assert (job.state, job.attempts) == ("queued", 0)  # it is not the job's fault
        assert [p.name for p in (store.folder / job.id).iterdir()] == ["input"]
    finally:
        store.close()
