"""Fixtures that several folders share: imported by their ``conftest.py``, and in force there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.common.jit import cache_directory


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep compiled models, and what was measured of them, out of the user's cache; the folder is not made yet."""
    cache_directory()  # looked up once: compiled kernels stay where they are, for they take a minute to make
    folder = tmp_path_factory.mktemp("own") / "cache"
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(folder))
    return folder


@pytest.fixture
def own_cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for the processes that a test starts: a home for caches, which shares the compiled kernels alone."""
    kernels = cache_directory()
    home = tmp_path_factory.mktemp("own") / "cache"
    (home / "perception").mkdir(parents=True)
    if kernels is not None and not os.environ.get("NUMBA_CACHE_DIR"):
        (home / "perception" / "numba").symlink_to(Path(kernels).parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch on one thread: these pictures are tiny, and threads that wait for each other on a busy machine are slow."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
