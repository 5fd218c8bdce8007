"""Tests of what runs on a GPU: on one where there is one, else under Numba's simulator (see `tests/test_gpu.py`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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


@pytest.fixture(scope="package", autouse=SIMULATED)
def threads_in_turn() -> Iterator[None]:
    """The simulator starts a thread of the system for each of a kernel's and polls them, which costs more than they do.

    No kernel waits for other threads of its block, so they may as well run one after the other in the calling thread;
    one that would wait fails here. `tests/test_gpu_check.py` runs kernels in the simulator's own threads.
    """
    from numba.cuda.simulator import kernel
    from numba.cuda.simulator.kernelapi import Dim3

    def run(self: Any, grid_point: tuple[int, ...], *args: Any) -> None:
        thread: Any = threading.current_thread()
        thread.blockIdx = Dim3(*grid_point)
        for block_point in np.ndindex(*self._block_dim):
            thread.threadIdx = Dim3(*block_point)
            self._f(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel.BlockManager, "run", run)
        yield


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A GPU for the TensorRT engine, under the simulator."""
    from tests.gpu.stand_in import install

    return install(monkeypatch)
