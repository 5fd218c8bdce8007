"""NVIDIA drivers that cannot be used: a real shared library is loaded, which says what such a driver says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from perception.engines.trt import flavour as flavour_module
from perception.engines.trt.flavour import find_flavour, installed

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the library has another name there"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to make the library with"),
]

SOURCE = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "NVIDIA Old", length); return 0; }
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 8ul << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 6; return 0; }
"""

ASK = """
import json
from perception.engines import engine_status, open_engine
from perception.engines.trt.build import build_model
from perception.weights.library import find_model
from perception.errors import EngineError
said = [engine_status("tensorrt")]
try:
    build_model(find_model("camvid"), flavour="rtx")
except EngineError as error:
    said.append(str(error))
print(json.dumps(said))
"""


def ask(folder: Path, init: int = 0, version: int = 13000) -> list[object]:
    """What the engine says, and what a build says, beside a driver."""
    (folder / "driver.c").write_text(SOURCE)
    flags = [f"-DINIT={init}", f"-DVERSION={version}", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", str(folder / "libcuda.so.1"), str(folder / "driver.c")], check=True, timeout=60)
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    said: list[object] = json.loads(done.stdout)
    return said


@pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system")
def test_a_driver_too_old_says_so_before_anything_is_built(tmp_path: Path) -> None:
    flavour = find_flavour("rtx")
    assert flavour.cuda == 13
    status, built = ask(tmp_path, version=12040)
    fault = f"the NVIDIA driver is too old: it knows CUDA 12.4, and {flavour.title} needs 13.0; update the driver"
    assert isinstance(status, list) and not status[0] and status[1].startswith(fault)
    assert str(built).startswith(fault) and "compute_capability=75" in str(built)


@pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system")
@pytest.mark.parametrize(
    ("driver", "fault"),
    [
        ("CUDA driver 13.0", ""),
        ("CUDA driver 13.2", ""),
        ("CUDA driver 14.1", ""),
        ("CUDA driver 12.9", "12.9"),
        ("no NVIDIA driver", ""),
    ],
)
def test_minor_versions_and_newer_drivers_are_fine(driver: str, fault: str) -> None:
    said = find_flavour("rtx").driver_fault(driver)
    assert (fault in said) if fault else (said == "")


@pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system")
@pytest.mark.parametrize(("code", "why"), [(100, "there is no GPU"), (803, "restart the machine"), (555, "no reason")])
def test_a_driver_that_does_not_start_says_why(code: int, why: str, tmp_path: Path) -> None:
    (status,) = ask(tmp_path, init=code)  # without a GPU the build is one for several, which needs none
    assert isinstance(status, list) and not status[0]
    assert f"CUDA error {code}: " in status[1] and why in status[1]


@pytest.mark.parametrize(
    ("driver", "bindings", "fault"),
    [
        ("CUDA driver 13.0", "13.5.0", ""),
        ("CUDA driver 12.9", "13.0.1", "knows CUDA 12.9, and numba-cuda needs 13.0"),
        ("CUDA driver 12.2", "12.9.4", ""),
        ("CUDA driver 12.2", None, ""),
        ("no NVIDIA driver", "13.5.0", ""),
    ],
)
def test_the_cuda_of_the_kernels_is_looked_at_too(
    driver: str, bindings: str | None, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name != "cuda-bindings" or bindings is None:
            raise PackageNotFoundError(name)
        return bindings

    monkeypatch.setattr(flavour_module, "package_version", version)
    said = flavour_module.kernels_fault(driver)
    assert (fault in said and "numba-cuda[cu12]" in said) if fault else said == ""
