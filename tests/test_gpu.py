"""The tests in `tests/gpu`, under Numba's CUDA simulator where there is no GPU.

The simulator must be chosen before numba.cuda is imported, hence the process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from perception import hardware


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda has no wheel for this system")
@pytest.mark.skipif(bool(hardware.nvidia_gpus()[0]), reason="there is a GPU: they run on it")
def test_under_the_simulator() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(Path(__file__).parent / "gpu")]
    done = subprocess.run(
        command, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, cwd=Path(__file__).parent.parent,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
