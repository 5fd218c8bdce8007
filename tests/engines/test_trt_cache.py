"""The cache of engines, with bytes for engines: what it promises has nothing to do with what they are."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from perception.common.files import write_atomic
from perception.engines.trt import cache as cache_module
from perception.engines.trt.cache import EngineCache, key_of
from perception.errors import EngineError

FIELDS: dict[str, Any] = {
    "model": "street", "graph": "aa", "precision": "fp16", "profile": "64x48, batch 1", "flavour": "rtx",
    "version": "1.7.1", "capabilities": ["80", "89"], "machine": None, "flags": "",
}  # fmt: skip
MACHINE = {"gpu": "RTX 4090", "capability": "8.9", "driver": "560.1", "cuda": "12.6", "l4t": ""}

posix = pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")


class Maker:
    """Builds different bytes each time, and counts."""

    def __init__(self, size: int = 100) -> None:
        self.size = size
        self.calls = 0

    def __call__(self) -> tuple[bytes, str]:
        self.calls += 1
        return bytes([self.calls]) * self.size, f"engine {self.calls}"


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def only(cache: EngineCache, pattern: str) -> Path:
    (path,) = cache.folder.glob(pattern)
    return path


def test_built_once_then_found_by_another_object(cache: EngineCache) -> None:
    make = Maker()
    first = cache.obtain(FIELDS, make)
    again = EngineCache(cache.folder).obtain(dict(reversed(FIELDS.items())), make)
    assert make.calls == 1
    assert first.built and not again.built
    assert first.plan == again.plan == b"\1" * 100
    assert first.path == again.path == cache.folder / f"{key_of(FIELDS)}.plan"
    assert again.summary == "engine 1"


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_decides(cache: EngineCache, field: str) -> None:
    make = Maker()
    cache.obtain(FIELDS, make)
    cache.obtain(FIELDS | {field: ["120"] if field == "capabilities" else "other"}, make)
    assert make.calls == 2


def test_the_reason_says_what_has_changed(cache: EngineCache) -> None:
    make = Maker()
    tuned = FIELDS | {"capabilities": [], "machine": MACHINE}
    assert "there is none" in cache.obtain(tuned, make).built
    updated = tuned | {"machine": MACHINE | {"driver": "570.2"}, "version": "1.8.0"}
    assert cache.obtain(updated, make).built == (
        "the one in the cache differs in driver (560.1 -> 570.2), version (1.7.1 -> 1.8.0)"
    )
    assert cache.obtain(updated | {"graph": "bb"}, make).built == "the one in the cache differs in graph"


def test_an_engine_for_more_gpus_serves_one_of_them(cache: EngineCache) -> None:
    make = Maker()
    cache.obtain(FIELDS, make)
    assert not cache.obtain(FIELDS | {"capabilities": ["89"]}, make).built
    assert cache.obtain(FIELDS | {"capabilities": ["89", "120"]}, make).built
    assert cache.obtain(FIELDS | {"capabilities": ["89"], "precision": "fp32"}, make).built
    assert cache.obtain(FIELDS | {"capabilities": [], "machine": MACHINE}, make).built
    assert make.calls == 4


def test_whether_an_engine_is_there_without_reading_it(cache: EngineCache) -> None:
    assert not cache.holds(FIELDS) and not cache.folder.exists()
    cache.obtain(FIELDS, Maker())
    assert cache.holds(FIELDS) and cache.holds(FIELDS | {"capabilities": ["89"]})
    for other in ({"capabilities": ["75"]}, {"profile": "64x48, batch 1..4"}, {"graph": "bb"}):
        assert not cache.holds(FIELDS | other)
    only(cache, "*.plan").unlink()
    assert cache.holds(FIELDS)  # it is to be had: built again when it is taken


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("short", r"cut short \(40 of 100 bytes\)"),
        ("changed", "not the one that was written"),
        ("gone", "cannot be used"),
        ("manifest cut", "manifest in the cache is damaged"),
        ("manifest of another format", "manifest in the cache is damaged"),
        ("manifest without a hash", "manifest in the cache is damaged"),
        ("manifest of another", "belongs to another engine"),
    ],
)
def test_what_is_damaged_is_built_again_with_one_line(
    cache: EngineCache, fault: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker()
    cache.obtain(FIELDS, make)
    plan, manifest = only(cache, "*.plan"), only(cache, "*.json")
    data = json.loads(manifest.read_text())
    if fault == "short":
        plan.write_bytes(plan.read_bytes()[:40])
    elif fault == "changed":
        plan.write_bytes(b"\7" * 100)
    elif fault == "gone":
        plan.unlink()
    elif fault == "manifest cut":
        manifest.write_bytes(manifest.read_bytes()[:50])
    elif fault == "manifest of another format":
        manifest.write_text(json.dumps(data | {"format": 99}))
    elif fault == "manifest without a hash":
        manifest.write_text(json.dumps({k: v for k, v in data.items() if k != "sha256"}))
    else:
        manifest.write_text(json.dumps(data | {"fields": FIELDS | {"model": "other"}}))
    with caplog.at_level(logging.WARNING, "perception"):
        again = cache.obtain(FIELDS, make)
    assert make.calls == 2 and again.plan == b"\2" * 100
    assert len(caplog.records) == 1
    caplog.clear()
    assert re.search(why, again.built)
    assert not cache.obtain(FIELDS, make).built  # mended


def test_an_engine_that_is_intact_and_of_no_use_makes_room_for_another(
    cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker()
    cache.obtain(FIELDS, make)
    taken = cache.obtain(FIELDS, make)
    other = EngineCache(cache.folder)
    again = cache.obtain(FIELDS, make, taken)
    assert make.calls == 2 and again.plan == b"\2" * 100 and again.built == "the one in the cache cannot be loaded"
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert not other.obtain(FIELDS, make, taken).built  # who found the same takes the new one
    assert not other.obtain(FIELDS, make).built and make.calls == 2


def test_one_for_more_gpus_that_is_of_no_use_is_passed_over(cache: EngineCache) -> None:
    make = Maker()
    cache.obtain(FIELDS, make)
    one = FIELDS | {"capabilities": ["89"]}
    taken = cache.obtain(one, make)
    assert not taken.built
    assert cache.obtain(one, make, taken).plan == b"\2" * 100
    assert cache.obtain(one, make).plan == b"\2" * 100 and cache.obtain(FIELDS, make).plan == b"\1" * 100


def test_a_build_that_fails_costs_no_engine(cache: EngineCache) -> None:
    def fail() -> tuple[bytes, str]:
        raise EngineError("the GPU is lost")

    cache.obtain(FIELDS, Maker())
    with pytest.raises(EngineError):
        cache.obtain(FIELDS, fail, cache.obtain(FIELDS, fail))
    assert cache.obtain(FIELDS, fail).plan == b"\1" * 100


@posix
def test_files_are_private_and_others_files_are_not_trusted(cache: EngineCache) -> None:
    make = Maker()
    cache.obtain(FIELDS, make)
    plan, manifest = only(cache, "*.plan"), only(cache, "*.json")
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(plan.stat().st_mode) == stat.S_IMODE(manifest.stat().st_mode) == 0o600
    plan.chmod(0o666)
    assert "others can write to it" in cache.obtain(FIELDS, make).built
    assert stat.S_IMODE(only(cache, "*.plan").stat().st_mode) == 0o600
    manifest.chmod(0o622)
    assert "damaged" in cache.obtain(FIELDS, make).built
    stolen = cache.folder.parent / "stolen"
    plan.rename(stolen)
    plan.symlink_to(stolen)
    assert "cannot be used" in cache.obtain(FIELDS, make).built
    assert make.calls == 4 and not only(cache, "*.plan").is_symlink()


@posix
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_folder_that_others_can_write_is_refused(cache: EngineCache, mode: int) -> None:
    make = Maker()
    cache.obtain(FIELDS, make)
    cache.folder.chmod(mode)
    with pytest.raises(EngineError, match=r"engines are code.*chmod 700") as caught:
        cache.obtain(FIELDS, make)
    assert str(cache.folder) in str(caught.value) and make.calls == 1


@posix
def test_a_link_for_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="engines are code"):
        EngineCache(tmp_path / "engines").obtain(FIELDS, Maker())


@posix
@pytest.mark.skipif(getattr(os, "getuid", lambda: 1)() != 0, reason="only root can give files away")
def test_somebody_elses_engine_is_not_trusted(cache: EngineCache) -> None:
    make = Maker()
    cache.obtain(FIELDS, make)
    os.chown(only(cache, "*.plan"), 12345, 12345)
    assert "belongs to another user, or others can write to it" in cache.obtain(FIELDS, make).built
    os.chown(cache.folder, 12345, 12345)
    with pytest.raises(EngineError, match="is not yours, or others can write to it"):
        cache.obtain(FIELDS, make)


def test_without_a_place_engines_are_built_and_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    make = Maker()
    got = EngineCache(tmp_path / "file" / "engines").obtain(FIELDS, make)
    assert got.plan == b"\1" * 100 and got.path is None and got.built
    assert "not cached" in caplog.text and len(caplog.records) == 1


def _use_a_read_only_folder(folder: Path) -> None:
    if os.getuid() == 0:  # whom nothing is read-only to
        for path in (folder, *folder.iterdir()):
            os.chown(path, 65534, 65534)
        os.setgid(65534)
        os.setuid(65534)
    folder.chmod(0o500)
    try:
        make = Maker()
        assert EngineCache(folder).obtain(FIELDS, make).path is not None and not make.calls  # what is there serves
        new = EngineCache(folder).obtain(FIELDS | {"graph": "bb"}, make)
        assert new.plan == b"\1" * 100 and new.path is None and new.built
    finally:
        folder.chmod(0o700)


@posix
def test_a_read_only_folder_is_read_and_what_is_built_is_not_kept() -> None:
    with tempfile.TemporaryDirectory() as parent:  # pytest's own folders are closed to others
        Path(parent).chmod(0o755)
        cache = EngineCache(Path(parent) / "engines")
        cache.obtain(FIELDS, Maker())
        process = multiprocessing.get_context("spawn").Process(target=_use_a_read_only_folder, args=(cache.folder,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert len(list(cache.folder.glob("*.plan"))) == 1


def test_a_full_disk_costs_the_cache_and_not_the_engine(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    got = cache.obtain(FIELDS, Maker())
    assert got.plan == b"\1" * 100 and got.path is None
    assert "No space left" in caplog.text
    assert [p.name for p in cache.folder.iterdir()] == [".lock"]  # nothing half-written stays


def test_a_build_that_fails_leaves_nothing_and_no_lock(cache: EngineCache) -> None:
    def fail() -> tuple[bytes, str]:
        raise EngineError("no")

    with pytest.raises(EngineError):
        cache.obtain(FIELDS, fail)
    assert not cache.entries()
    assert cache.obtain(FIELDS, Maker()).built


def test_the_longest_unused_go_first_and_the_new_one_stays(cache: EngineCache) -> None:
    make = Maker(10_000)
    for i, graph in enumerate("abc"):
        cache.obtain(FIELDS | {"graph": graph}, make)
        os.utime(cache.folder / f"{key_of(FIELDS | {'graph': graph})}.json", (1000 + i, 1000 + i))
    assert not cache.obtain(FIELDS | {"graph": "a"}, make).built  # used just now
    limited = EngineCache(cache.folder, limit_bytes=25_000)
    limited.obtain(FIELDS | {"graph": "d"}, make)
    assert [e.fields["graph"] for e in limited.entries()] == ["d", "a"]
    assert all(e.size_bytes > 10_000 for e in limited.entries())
    EngineCache(cache.folder, limit_bytes=1).obtain(FIELDS | {"graph": "e"}, make)
    assert [e.fields["graph"] for e in limited.entries()] == ["e"]
    assert {p.suffix for p in cache.folder.iterdir()} == {"", ".json", ".plan"}


def test_what_crashed_processes_left_is_swept(cache: EngineCache) -> None:
    cache.folder.mkdir(mode=0o700)
    for name in (".new-old", ".new-young", "beef.plan", "beef.runtime"):
        write_atomic(cache.folder / name, b"x", private=True)
    os.utime(cache.folder / ".new-old", (1000, 1000))
    for i in range(7):
        write_atomic(cache.folder / f"timing-{i}", b"x", private=True)
        os.utime(cache.folder / f"timing-{i}", (1000 + i, 1000 + i))
    cache.obtain(FIELDS, Maker())
    left = {p.name for p in cache.folder.iterdir()} - {f"{key_of(FIELDS)}.plan", f"{key_of(FIELDS)}.json"}
    assert left == {".lock", ".new-young", "timing-3", "timing-4", "timing-5", "timing-6"}


def test_list_and_clear(cache: EngineCache) -> None:
    assert cache.entries() == [] and cache.clear() == (0, 0)
    cache.obtain(FIELDS, Maker())
    cache.obtain(FIELDS | {"graph": "b"}, Maker())
    only_damaged = cache.folder / f"{key_of(FIELDS)}.json"
    only_damaged.write_text("{")
    os.utime(only_damaged, (1000, 1000))
    good, damaged = cache.entries()
    assert good.fields["graph"] == "b" and good.summary == "engine 1" and good.built.endswith("Z")
    assert damaged.fields == {} and damaged.summary is None
    count, size = cache.clear()
    assert count == 2 and size > 200
    assert cache.entries() == [] and cache.clear() == (0, 0)


def _obtain(folder: Path, log: Path, started: Any, second: Any, number: int) -> None:
    def make() -> tuple[bytes, str]:
        with log.open("a") as file:
            file.write("built\n")
        started.set()
        assert second.wait(60)
        return b"engine" * 100, "slow"

    cache = EngineCache(folder)
    if number == 1:
        second.set()
    got = cache.obtain(FIELDS, make)
    with log.open("a") as file:
        file.write(f"{got.plan == b'engine' * 100} {bool(got.built)}\n")


def test_two_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started, second = context.Event(), context.Event()
    log = tmp_path / "log"
    processes = [
        context.Process(target=_obtain, args=(tmp_path / "engines", log, started, second, i)) for i in range(2)
    ]
    processes[0].start()
    assert started.wait(60)
    processes[1].start()  # comes while the first one builds
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0]
    assert sorted(log.read_text().split("\n")[:-1]) == ["True False", "True True", "built"]


@posix
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks(cache: EngineCache, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As network file systems may be: engines are kept there all the same."""
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    make = Maker()
    assert cache.obtain(FIELDS, make).path is not None
    assert not cache.obtain(FIELDS, make).built and make.calls == 1
    assert cache.clear()[0] == 1


def _die_while_building(folder: Path) -> None:
    EngineCache(folder).obtain(FIELDS, lambda: os._exit(3))  # type: ignore[arg-type,return-value]


def test_a_builder_that_dies_keeps_nobody_waiting(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_die_while_building, args=(tmp_path / "engines",))
    process.start()
    process.join(60)
    assert process.exitcode == 3
    assert EngineCache(tmp_path / "engines").obtain(FIELDS, Maker()).built
