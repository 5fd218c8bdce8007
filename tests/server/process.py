"""``perception live`` in a process of its own, as it is run: its log, memory, threads and descriptors are in view."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from tests.models import write_model
from tests.server.waiting import wait_for


class ResourceUsage(NamedTuple):
    """What a process holds."""

    memory: int
    threads: int
    descriptors: int


class LiveProcess:
    """A server with a tiny model.

    Args:
        folder: for its data and its log.
        descriptors: how many files it may open.
        environment: added to this process's.
        settings: see `perception.server.settings.ServerSettings`.
    """

    def __init__(
        self,
        folder: Path,
        descriptors: int | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        model = write_model(folder / "colors.onnx", detection=True)
        config = folder / "live.yaml"
        settings = {"model": str(model), "port": 0, "data_dir": str(folder / "data"), **settings}
        settings.setdefault("sources", {"scene": "synthetic:?size=64x48&frames=40&fps=25"})
        config.write_text(yaml.safe_dump(settings))
        self.log = folder / "log"
        command = [sys.executable, "-m", "perception", "live", "--config", str(config), "--no-browser"]

        def limited() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(descriptors, 64), descriptors))

        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                preexec_fn=limited,
            )
        self._watched = psutil.Process(self._process.pid)
        try:
            wait_for(lambda: "perception live: http" in self.said() or self._process.poll() is not None, 300)
            assert self._process.poll() is None, self.said()
        except BaseException:
            self.kill()
            raise
        self.url = self.said().partition("perception live: ")[2].split()[0].rstrip("/")
        self.host, _, port = self.url.partition("://")[2].rpartition(":")
        self.port = int(port)

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")

    def usage(self) -> ResourceUsage:
        """What it holds now, of itself."""
        return ResourceUsage(self._watched.memory_info().rss, self._watched.num_threads(), self._watched.num_fds())

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        self._process.wait(60)

    def stop(self) -> int:
        """End it; its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(300)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(60)
            raise


@contextmanager
def live(folder: Path, descriptors: int | None = None, **options: Any) -> Iterator[LiveProcess]:
    """A server in a process of its own; see `LiveProcess`."""
    server = LiveProcess(folder, descriptors, **options)
    try:
        yield server
    finally:
        server.stop()
