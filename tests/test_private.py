"""What is written for one user is closed to others from the first moment on, whatever the umask."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.common import jit
from perception.common.private import (
    make_folder,
    private_cache,
    private_file,
    private_folder,
    read_secret,
    reserve_private,
)
from perception.engines import autotune
from perception.engines.cache import prepare_compiled_models_dir
from perception.errors import UsageError
from perception.server.settings import read_settings

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no modes")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the user's."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    return tmp_path / "cache" / "perception"


def test_folders(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "b" / "c")
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/c")] == [0o700] * 3
    (tmp_path / "open").mkdir(mode=0o755)
    make_folder(tmp_path / "open" / "in")
    assert mode(tmp_path / "open") == 0o755
    private_folder(tmp_path / "open")  # as an earlier version left it
    assert mode(tmp_path / "open") == 0o700
    (tmp_path / "file").touch()
    for make in (make_folder, private_folder):
        with pytest.raises(OSError, match=r"file"):
            make(tmp_path / "file")
        with pytest.raises(OSError, match=r"file"):
            make(tmp_path / "file" / "in")


def test_folders_are_never_open_for_a_moment(tmp_path: Path) -> None:
    """Not even between being made and being closed: who watches never sees one that others may enter."""
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in tmp_path.glob("*"):
                try:
                    seen.add(mode(path))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(300):
        private_folder(tmp_path / f"folder{i}")
        private_file(tmp_path / f"file{i}").close()
        reserve_private(tmp_path / f"reserved{i}")
    done.set()
    watcher.join()
    assert seen <= {0o700, 0o600}


def test_files(tmp_path: Path) -> None:
    with private_file(tmp_path / "new") as file:
        file.write(b"abc")
    assert mode(tmp_path / "new") == 0o600
    (tmp_path / "old").write_text("much more")
    assert mode(tmp_path / "old") == 0o666
    with private_file(tmp_path / "old") as file:
        file.write(b"x")
    assert (mode(tmp_path / "old"), (tmp_path / "old").read_bytes()) == (0o600, b"x")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        private_file(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_reserved_files_keep_what_is_in_them(tmp_path: Path) -> None:
    reserve_private(tmp_path / "new")
    assert (mode(tmp_path / "new"), (tmp_path / "new").read_bytes()) == (0o600, b"")
    (tmp_path / "old").write_text("kept")
    reserve_private(tmp_path / "old")
    assert (mode(tmp_path / "old"), (tmp_path / "old").read_text()) == (0o600, "kept")


def test_all_of_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True, mode=0o755)
    (cache / "compiled").mkdir(mode=0o755)
    prepare_compiled_models_dir("openvino")
    autotune.save_times({"model": "x"}, {"a": 1.0})
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    found = jit._find_directory()
    assert found is not None
    assert Path(found).is_relative_to(cache)
    private_cache("clips")
    assert mode(cache / "autotune.json") == 0o600
    for path in [cache, *cache.rglob("*")]:
        if path.is_dir():
            assert mode(path) == 0o700, path


def test_secrets_that_others_can_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "password"
    for bits, told in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
        path.write_text("hunter2\n")
        path.chmod(bits)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read_secret(path) == "hunter2"
        assert len(caplog.records) == told
        assert ("chmod 600" in caplog.text and str(path) in caplog.text) == told
        assert "hunter2" not in caplog.text
        path.unlink()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("token: 0123456789", True),
        ("user: me\npassword: hunter2", True),
        ("sources:\n  cam: rtsp://bob:hunter2@cam/live", True),
        ("sources:\n  cam: {uri: 'rtsp://bob:hunter2@cam/live'}", True),
        ("sources:\n  cam: rtsp://cam/live", False),
        ("port: 80", False),
    ],
)
def test_settings_with_secrets(text: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "live.yaml"
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        read_settings(path)
    assert ("chmod 600" in caplog.text) == told
    path.chmod(0o600)
    caplog.clear()
    read_settings(path)
    assert not caplog.records


@pytest.mark.parametrize(
    "text", ['password: "hunter2', "password: !hunter2", "password: *hunter2", "password: hunter2: x", "- hunter2\n a"]
)
def test_a_settings_file_that_cannot_be_read_is_not_quoted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_text(f"port: 80\n{text}\n")
    with pytest.raises(UsageError) as caught:
        read_settings(path)
    assert "hunter2" not in str(caught.value)
    assert "line 2" in str(caught.value) or "line 3" in str(caught.value)
