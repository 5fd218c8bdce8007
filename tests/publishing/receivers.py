"""What published streams are sent to: FFmpeg and a real RTSP server, in processes that can be killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import av
import pytest

from tests.media import read_stamp
from tests.server.rtsp_process import PYTHON
from tests.server.waiting import wait_for

HERE = Path(__file__).parent
LISTEN = {
    "rtsp": ["rtsp_flags=listen", "listen_timeout=120"],
    "rtmp": ["listen=1", "analyzeduration=100000", "fpsprobesize=0"],
    "udp": ["fflags=nobuffer", "analyzeduration=100000", "fpsprobesize=0"],
}


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Receiver:
    """`tests/publishing/receiver.py` on a port of its own, which can be killed and started again there.

    Attributes:
        url: what to publish to.
        frames: what it has received, over all its lives, see there.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        port = free_port(socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        self.url = f"{kind}://127.0.0.1:{port}" + ("" if kind == "udp" else "/live/street")
        self.frames: list[dict[str, Any]] = []
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.publishing.receiver", self.url, *LISTEN[self.kind]]
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                self.frames.append(json.loads(line))

    def wait_for(self, count: int) -> None:
        """Until it has received so many frames."""
        wait_for(lambda: len(self.frames) >= count, 60)

    def stop(self) -> None:
        """Kill it, if it runs."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait(30)
            assert self._reader is not None
            self._reader.join(30)
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class RtspRecorder:
    """`tests/publishing/rtsp_recorder.py`, which can be killed and started again on the same port."""

    script = "rtsp_recorder.py"
    address = "rtsp://{}127.0.0.1:{}/live"

    def __init__(self, file: Path, *credentials: str) -> None:
        self.file = file
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self._credentials = credentials

    @property
    def url(self) -> str:
        user = ":".join(self._credentials)
        return self.address.format(f"{user}@" if user else "", self.port)

    def start(self) -> None:
        command = [PYTHON, str(HERE / self.script), str(self.file), str(self.port), *self._credentials]
        environment = {**os.environ, "OPENSSL_CONF": str(HERE / "openssl.cnf")}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said:
            assert self.process.stderr is not None
            pytest.skip(f"{self.script}: {self.process.stderr.read().strip()}")
        self.port = int(said)

    def stop(self) -> None:
        """Kill it, if it runs."""
        if self.process is not None:
            assert self.process.stdout is not None
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
            self.process.stdout.close()
            assert self.process.stderr is not None
            self.process.stderr.close()
            self.process = None

    @property
    def size(self) -> int:
        """Bytes that it has recorded."""
        return self.file.stat().st_size if self.file.exists() else 0

    def numbers(self) -> list[int]:
        """The numbers stamped on the frames that it has recorded, as far as they can be decoded."""
        codec = av.CodecContext.create("h264", "r")
        codec.thread_count = 1
        data = self.file.read_bytes() if self.file.exists() else b""
        numbers = []
        for packet in [*codec.parse(data), *codec.parse(b""), None]:
            try:
                numbers += [read_stamp(frame.to_ndarray(format="bgr24")) for frame in codec.decode(packet)]
            except av.FFmpegError:  # the part of a frame that was written when it was killed
                continue
        return numbers

    def __enter__(self) -> RtspRecorder:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class WhipRecorder(RtspRecorder):
    """`tests/publishing/whip_server.py`, which has another port each time that it is started."""

    script = "whip_server.py"
    address = "whip://{}127.0.0.1:{}/live/whip"
