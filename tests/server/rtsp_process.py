"""The RTSP server of `tests/server/rtsp_server.py` as a process that can be stopped and started on the same port."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

PYTHON = "/usr/bin/python3"
NEEDS = "apt-get install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good python3-gi"
_CHECK = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [name for name in ("qtdemux", "rtph264pay", "rtpbin") if Gst.ElementFactory.find(name) is None]
raise SystemExit(f"no {', '.join(missing)}" if missing else 0)
"""


def missing() -> str:
    """What there is not, for it to run; mostly empty."""
    try:
        check = subprocess.run([PYTHON, "-c", _CHECK], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return str(error)
    return check.stderr.strip().splitlines()[-1] if check.returncode else ""


class RtspProcess:
    """The server.

    Args:
        video: what each client gets from its beginning.
        prefix: words before the command, such as those that run it in a network of its own.
        address: what it listens on.
    """

    def __init__(self, video: Path, prefix: Sequence[str] = (), address: str = "127.0.0.1") -> None:
        self.video = video
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self._prefix = list(prefix)
        self._address = address

    def start(self) -> None:
        """Start it; on the same port as before."""
        script = str(Path(__file__).with_name("rtsp_server.py"))
        command = [*self._prefix, PYTHON, script, str(self.video), str(self.port), self._address]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, if it runs."""
        if self.process is not None:
            assert self.process.stdout is not None
            self.process.send_signal(how)
            self.process.wait(30)
            self.process.stdout.close()
            self.process = None

    def end(self) -> None:
        """End it, though it be frozen."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.stop()
