from __future__ import annotations

from pathlib import Path

import pytest

from perception.common.jit import cache_directory


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep compiled models out of the user's cache."""
    cache_directory()  # looked up once: compiled kernels stay where they are, for they take a minute to make
    folder = tmp_path / "cache"
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(folder))
    return folder
