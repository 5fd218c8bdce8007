"""The store of clips: within its limits, and nothing else's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perception.footage.store import FootageStore


class Clock:
    def __init__(self) -> None:
        self.seconds = 1.8e9

    def __call__(self) -> float:
        return self.seconds


def fill(store: FootageStore, clock: Clock, count: int, size: int = 1000) -> list[str]:
    names = []
    for _ in range(count):
        name = store.new_name(".jpg")
        assert name is not None and store.is_making(name) and store.find(name) is None
        store.write(name, bytes(size))
        os.utime(store.folder / name, (clock.seconds, clock.seconds))
        assert not store.is_making(name)
        names.append(name)
        clock.seconds += 60
    return names


def test_the_oldest_give_way_to_the_newest(tmp_path: Path) -> None:
    clock = Clock()
    store = FootageStore(tmp_path / "c", limit_bytes=10_500, now=clock)
    names = fill(store, clock, 25)
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(names[-10:])
    assert [store.find(name) is not None for name in names] == [False] * 15 + [True] * 10
    again = FootageStore(tmp_path / "c", limit_bytes=5_500, now=clock)  # another start, and less room
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(names[-5:])
    assert again.find(names[-1]) == tmp_path / "c" / names[-1]


def test_what_is_old_is_deleted(tmp_path: Path) -> None:
    clock = Clock()
    store = FootageStore(tmp_path / "c", keep_days=1, now=clock)
    names = fill(store, clock, 3)
    clock.seconds += 86400 - 150
    store.clean()
    assert [store.find(name) is not None for name in names] == [False, True, True]
    clock.seconds += 1e6
    assert FootageStore(tmp_path / "c", keep_days=1, now=clock).find(names[2]) is None
    assert [*store.folder.iterdir()] == []


def test_files_of_others_are_neither_deleted_nor_given(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"x" * 100)
    others = [
        "notes.txt",
        "holiday.jpg",
        "ABCDEF0123456789abcdef0123456789.jpg",
        "a" * 31 + ".mp4",
        "a" * 32 + ".mp4.x",
    ]
    for name in others:
        (folder / name).write_bytes(b"y" * 100)
    link = folder / f"{'b' * 32}.jpg"
    link.symlink_to(secret)
    clock = Clock()
    store = FootageStore(folder, limit_bytes=1, keep_days=1e-9, now=clock)
    assert all((folder / name).exists() for name in others) and link.is_symlink()
    for name in (*others, link.name, "../secret.jpg", "/etc/passwd", ""):
        assert store.find(name) is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="modes")
def test_the_folder_of_a_service_is_for_its_user_alone(tmp_path: Path) -> None:
    store = FootageStore(tmp_path / "c")
    assert not store.folder.exists()  # until there is something to keep
    store.new_name(".mp4")
    assert store.folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store = FootageStore(tmp_path / "file" / "c")
    assert [store.new_name(".mp4") for _ in range(3)] == [None] * 3
    assert len([line for line in caplog.messages if "nothing is kept of events" in line]) == 1
