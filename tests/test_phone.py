"""The page on a phone: its address in the network, and a QR code that a scanner reads."""

from __future__ import annotations

import ipaddress
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.commands.phone import BORDER, HALVES, network_url, qr_code
from tests.models import write_model

MODULE = 8
"""Pixels of a module, as a camera sees it."""


def drawn(lines: list[str]) -> np.ndarray:
    """The lines as dark on light: two modules a character, one above the other."""
    bits = np.array([[HALVES.index(character) for character in line] for line in lines])
    dark = np.stack((bits >> 1, bits & 1), 1).reshape(-1, bits.shape[1])
    return np.kron(np.where(dark, 0, 255).astype(np.uint8), np.ones((MODULE, MODULE), np.uint8))


def read(lines: list[str]) -> str:
    picture = cv2.copyMakeBorder(drawn(lines), *[4 * MODULE] * 4, cv2.BORDER_CONSTANT, value=255)
    return cv2.QRCodeDetector().detectAndDecode(picture)[0]


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.7:7860", "http://[2001:db8::7]:7860", "http://192.168.178.123:65535/perception/", "http://b:1"],
)
def test_a_scanner_reads_the_address(url: str) -> None:
    pytest.importorskip("segno")
    lines = qr_code(url)
    assert read(lines) == url
    assert len({len(line) for line in lines}) == 1 and not lines[0].strip()  # a light border is around it
    assert all(line.startswith(" " * BORDER) and line.endswith(" " * BORDER) for line in lines)


def test_a_named_host_stays() -> None:
    for host in ("192.168.1.4", "camera.example", "fd00::4"):
        assert network_url(f"http://{host}:7860", host) == f"http://{host}:7860"


def test_all_networks_are_those_of_this_machine() -> None:
    found = network_url("http://me:7860/perception/", "0.0.0.0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.7", 1))
            wanted = f"http://{probe.getsockname()[0]}:7860/perception/"
        except OSError:
            wanted = "http://me:7860/perception/"
    assert found == wanted


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("stty") is None, reason="there is no terminal here")
def test_a_service_for_others_shows_it_on_a_terminal(tmp_path: Path) -> None:
    """And what it says there leads to the page; no password is in it."""
    pytest.importorskip("segno")
    pytest.importorskip("gradio")
    (tmp_path / "password").write_text("s3cret-word")
    model = write_model(tmp_path / "colors.onnx")
    main, theirs = pty.openpty()
    command = [
        sys.executable, "-m", "perception", "live", "synthetic:?size=64x48", "-m", str(model), "--host", "0.0.0.0",
        "--port", "0", "--user", "me", "--password-file", str(tmp_path / "password"), "--data-dir", str(tmp_path / "d"),
        "--no-browser",
    ]  # fmt: skip
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    text = ""
    try:
        deadline = time.monotonic() + 100
        while "Press Ctrl-C" not in text and time.monotonic() < deadline:
            if select.select([main], [], [], 1)[0]:
                text += os.read(main, 65536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(main)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)
    shown = re.search(r"On a phone: (http://(\S+):(\d+))\s", plain)
    assert shown is not None, plain
    code = [line for line in plain.replace("\r", "").splitlines() if len(line) > 20 and set(line) <= set(HALVES)]
    assert read(code) == shown[1]
    assert "s3cret-word" not in plain
    if shown[2] != socket.gethostname():
        assert not ipaddress.ip_address(shown[2]).is_unspecified
