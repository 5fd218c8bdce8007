"""Fixtures that several files share: those that a ``conftest.py`` or a test's file imports are in force there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest


def skip_without(package: str, reason: str) -> None:
    """Skip the module that calls this where a package is not installed.

    Unlike `pytest.importorskip` it imports nothing: each process of the tests imports every module of tests, and for
    some packages that takes seconds.
    """
    if find_spec(package) is None:
        pytest.skip(reason, allow_module_level=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep compiled models, and what was measured of them, out of the user's cache; the folder is not made yet."""
    from perception.common.jit import cache_directory

    cache_directory()  # looked up once: compiled kernels stay where they are, for they take a minute to make
    folder = tmp_path_factory.mktemp("own") / "cache"
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(folder))
    monkeypatch.setattr("perception.engines.openvino._MEASURE_SECONDS", 0.05)  # each test measures anew
    return folder


@pytest.fixture
def own_cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for the processes that a test starts: a home for caches, which shares the compiled kernels alone."""
    home = make_cache_home(tmp_path_factory.mktemp("own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def make_cache_home(folder: Path) -> Path:
    """Make a home for caches in a folder, which shares the compiled kernels alone."""
    from perception.common.jit import cache_directory

    kernels = cache_directory()
    home = folder / "cache"
    (home / "perception").mkdir(parents=True)
    if kernels is not None and not os.environ.get("NUMBA_CACHE_DIR"):
        (home / "perception" / "numba").symlink_to(Path(kernels).parent)
    return home


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Main = Callable[..., Done]


@pytest.fixture
def main_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Main]:
    """The ``perception`` command in this process, which need not import everything first."""
    from perception.commands.main import main

    def call(*args: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["perception", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capfd.readouterr()
        return Done(int(ended.value.code or 0), told.out, told.err)

    handler = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch on one thread: these pictures are tiny, and threads that wait for each other on a busy machine are slow."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
