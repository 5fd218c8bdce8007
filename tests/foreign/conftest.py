from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep adapted and compiled models out of the user's cache; compiled kernels stay there, they take long."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("perception.engines.cache.compiled_models_dir", lambda engine: folder / engine)
    return folder
