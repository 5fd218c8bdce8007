"""Files appear whole or not at all, whoever reads them meanwhile and whatever fails."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from perception.common.files import draft_of, file_size, write_atomic


@pytest.mark.parametrize("private", [False, True])
def test_readers_see_one_version_or_the_other(tmp_path: Path, private: bool) -> None:
    path = tmp_path / "file"
    versions = {bytes([i]) * 100_000 for i in range(8)}
    write_atomic(path, bytes(100_000), private=private)
    ended = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not ended.is_set():
            seen.add(path.read_bytes())

    def write(data: bytes) -> None:
        for _ in range(20):
            write_atomic(path, data, private=private)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(data,)) for data in sorted(versions)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    reader.join()
    assert seen <= versions
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_private_files_are_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "own", b"1", private=True)
        write_atomic(tmp_path / "open", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o644


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "no bytes")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError), draft_of(path) as draft:
        draft.write_bytes(b"half")
        raise RuntimeError
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "nowhere" / "file", b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_takes_the_name_when_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with draft_of(path) as draft:
        draft.write_bytes(b"whole")
        assert draft.name == path.name and draft.parent != tmp_path and not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomic(path, b"1")
    with draft_of(path) as draft:
        draft.write_bytes(b"2")
    assert path.read_bytes() == b"2"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (1234, "1.2 kB"), (999_940, "999.9 kB"),
        (999_999, "1 MB"), (3_400_000, "3.4 MB"), (5_000_000, "5 MB"), (2e9, "2 GB"), (5e12, "5000 GB"),
    ],
)  # fmt: skip
def test_sizes_as_people_read_them(size: float, text: str) -> None:
    assert file_size(size) == text
