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

from perception.common import hardware


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda has no wheel for this system")
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(hardware.nvidia_gpus()[0]), reason="there is a GPU: they run on it")
def test_under_the_simulator() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(Path(__file__).parent / "gpu")]
    done = subprocess.run(
        command, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, cwd=Path(__file__).parent.parent,
        capture_output=True, text=True, timeout=880, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda has no wheel for this system")
def test_every_kernel_compiles_for_real_gpus_without_fused_products() -> None:
    """The simulator runs Python; this is NVIDIA's compiler, which types every line and needs no GPU."""
    from numba import cuda, types
    from numba.cuda.cudadrv import nvvm

    if not nvvm.is_available():
        pytest.skip("libNVVM is not installed")
    from perception.postprocess import cuda as pixels

    u8, f32, i64, number = types.uint8, types.float32, types.int64, types.int64
    signatures = {
        "fit_kernel": (u8[:, :, ::1], i64[::1], f32[:, ::1], i64[::1], f32[:, ::1], number, number, u8[:, :, ::1]),
        "fit_planes_kernel": (
            *([u8[:, ::1]] * 3), *([i64[::1], f32[:, ::1]] * 4), f32[::1], f32, number, number, u8[:, :, ::1],
        ),
        "label_kernel": (f32[:, :, :, ::1], u8[:, :, ::1]),
    }  # fmt: skip
    kernels = {n: k for n, k in vars(pixels).items() if n.endswith("_kernel")}
    assert set(signatures) == set(kernels)
    for name, signature in signatures.items():
        for capability in ((7, 5), (12, 0)):
            ptx, _ = cuda.compile_ptx(kernels[name].py_func, signature, cc=capability)
            assert ".visible .entry" in ptx
            assert "fma.rn.f32" not in ptx, f"{name}: a fused product rounds differently from the CPU"
            assert ".f64" not in ptx, f"{name}: double precision is slow on GPUs, and different"
