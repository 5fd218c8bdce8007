"""``perception live`` as an operator starts it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import pytest
from typer.testing import CliRunner

from perception.commands.main import app
from tests.media import make_video
from tests.models import solid
from tests.server.conftest import wait_until_ready
from tests.server.process import live as server_process
from tests.server.waiting import wait_for

DEMO = Path(__file__).parents[2] / "demos" / "client.py"
TOKEN = "0123456789abcdef"


@contextmanager
def live(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the address that it printed."""
    command = [sys.executable, "-m", "perception", "live", "--port", "0", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, (line, process.communicate(timeout=120))
        yield process, found[0]
    finally:
        process.kill()
        process.communicate(timeout=120)


def test_the_log_says_when_it_is_ready(tmp_path: Path) -> None:
    with server_process(tmp_path) as server:
        wait_for(lambda: "ready after" in server.said(), 90)
        said = server.said()
    preparing = re.search(r"^\d\d:\d\d:\d\d preparing; .*$", said, re.M)
    address = re.search(r"^perception live: http", said, re.M)
    ready = re.search(r"^(\S+) ready after \d+ s: colors, .*$", said, re.M)
    assert preparing and address and ready
    assert preparing.start() < address.start() < ready.start()
    assert re.fullmatch(r"\d\d:\d\d:\d\d", ready[1])
    assert "OpenVINO" in ready[0]


def switches(pid: int) -> int:
    """How often the main thread of a process went to sleep."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.M)[1])


@pytest.mark.timeout(600)
def test_it_serves_until_it_is_ended_and_the_demo_asks_it(colors: Path, tmp_path: Path) -> None:
    """One process for all that: starting one takes seconds."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    cv2.imwrite(str(tmp_path / "red.png"), solid("red"))
    make_video(tmp_path / "clip.mp4", frames=12)
    options = ["--model", str(colors), "--data-dir", str(tmp_path / "data"), "--token-file", str(tmp_path / "token")]
    with live(str(tmp_path / "clip.mp4"), "--host", "0.0.0.0", "--no-browser", *options) as (process, url):
        here = re.sub(r"//[^:]*", "//127.0.0.1", url)
        assert httpx.get(f"{here}/v1/models", timeout=60).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=here, headers=bearer, timeout=60) as client:
            wait_until_ready(client)
            assert client.get("/").status_code == 200
            assert client.get("/v1/streams").json()["sources"] == ["clip"]
            before, began = switches(process.pid), time.monotonic()
            time.sleep(2)
            rate = (switches(process.pid) - before) / (time.monotonic() - began)
            assert rate < 300  # of which an idle Gradio alone would make 850
        for name in ("red.png", "clip.mp4"):
            command = [sys.executable, str(DEMO), str(tmp_path / name), here, TOKEN]
            done = subprocess.run(command, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, done.stderr
            if name == "red.png":
                assert '"red": 1.0' in done.stdout
        assert cv2.imread(str(tmp_path / "red-annotated.png")).shape == (48, 64, 3)
        assert (tmp_path / "clip-annotated.mp4").stat().st_size > 1000
        assert len((tmp_path / "clip-annotated.jsonl").read_text().splitlines()) == 12
        wrong = subprocess.run([*command[:-1], "wrong"], capture_output=True, text=True, timeout=200)
        assert (wrong.returncode, wrong.stderr.strip()) == (1, "wrong credentials")

        stream = httpx.post(f"{here}/v1/streams", json={"source": "clip"}, headers=bearer, timeout=60).json()["id"]
        with httpx.stream("GET", f"{here}/v1/streams/{stream}/mjpeg", headers=bearer, timeout=60):  # cut off at the end
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "Traceback" not in err and "ERROR" not in err
        assert "and has the credentials" in " ".join(err.split())  # what listening means
        assert TOKEN not in out + err
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        pass  # the port is free again
    written = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert {path.name for path in written} >= {"jobs.sqlite3", "output.mp4", "output.jsonl"}
    assert not [path for path in written if path.stat().st_mode & 0o077]  # nobody else can read any of it


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--host", "0.0.0.0"], "insecure=True"),
        (["--user", "me"], "give both user and password"),
        (["--allow", "*"], "matches no URL"),
        (["--token-file", "nothing"], "nothing: cannot be read"),
        (["--config", "nothing.yaml"], "nothing.yaml: cannot read"),
        (["--engine", "vapour"], "engine"),
        (["nothing.mp4"], "nothing.mp4: no such file"),
    ],
)
def test_wrong_usage(args: list[str], says: str, tmp_path: Path) -> None:
    source = [] if args == ["nothing.mp4"] else ["synthetic:"]
    result = CliRunner().invoke(app, ["live", *source, "--port", "0", "--data-dir", str(tmp_path), *args])
    assert result.exception is not None
    assert says in str(result.exception) + result.output
    assert result.exit_code == 2 or getattr(result.exception, "exit_code", None) == 2


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["live", "synthetic:", "--port", port, "--data-dir", str(tmp_path)])
    assert "choose another port" in str(result.exception)
