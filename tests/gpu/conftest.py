"""Tests of what runs on a GPU: on one where there is one, else under Numba's simulator (see `tests/test_gpu.py`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perception.common import hardware
from tests.fixtures import own_cache  # noqa: F401

if TYPE_CHECKING:
    from tests.gpu.stand_in import StandIn

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without either, importing a kernel would already fail."""
    return (
        True if not SIMULATED and not hardware.nvidia_gpus()[0] and collection_path.name.startswith("test_") else None
    )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A GPU for the TensorRT engine, under the simulator."""
    from tests.gpu.stand_in import install

    return install(monkeypatch)
