"""The machine: CPU features, cores that may be used, memory, NVIDIA GPUs.

Only the standard library is needed; every question has an answer on every system, if a poorer one.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_X86_FEATURES = {
    "avx2": ("avx2",),
    "fma": ("fma",),
    "avx512": ("avx512f",),
    "avx512_vnni": ("avx512_vnni",),
    "avx_vnni": ("avx_vnni",),
    "avx512_bf16": ("avx512_bf16",),
    "amx_bf16": ("amx_bf16",),
    "amx_int8": ("amx_int8",),
}
_ARM_FEATURES = {
    "neon": ("asimd",),
    "fp16": ("asimdhp",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
    "bf16": ("bf16",),
    "sve": ("sve",),
}
_MAC_FEATURES = {
    "avx2": "hw.optional.avx2_0",
    "avx512": "hw.optional.avx512f",
    "neon": "hw.optional.neon",
    "fp16": "hw.optional.arm.FEAT_FP16",
    "dotprod": "hw.optional.arm.FEAT_DotProd",
    "i8mm": "hw.optional.arm.FEAT_I8MM",
    "bf16": "hw.optional.arm.FEAT_BF16",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU: its name, compute capability (major, minor) and memory in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """Return the name of the processor, or at least its architecture."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    info = _read("/proc/cpuinfo")
    for key in ("model name", "Model", "Hardware"):
        name = _cpuinfo_field(info, key)
        if name:
            return name
    model = _read("/sys/firmware/devicetree/base/model").strip("\0 \n")  # Jetson, Raspberry Pi
    return model or platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def cpu_features() -> dict[str, bool] | None:
    """Return whether the CPU has each instruction set that matters to neural networks; None where unknown."""
    if sys.platform == "darwin":
        values = {feature: _sysctl(key) for feature, key in _MAC_FEATURES.items()}
        return {feature: value == "1" for feature, value in values.items() if value} or None
    info = _read("/proc/cpuinfo")
    arm = platform.machine().lower() in ("aarch64", "arm64")
    flags = set(_cpuinfo_field(info, "Features" if arm else "flags").split())
    if not flags:
        return None
    return {feature: flags >= set(needed) for feature, needed in (_ARM_FEATURES if arm else _X86_FEATURES).items()}


def logical_cores() -> int:
    """Return the number of hardware threads that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def usable_cores() -> int:
    """Return the number of physical cores that this process can keep busy.

    Two hardware threads of one core share the multipliers that a network lives on, so they count once. A
    container's CPU quota counts too: more threads than the quota are stopped in the middle of their work.
    """
    cores = _physical_cores() or logical_cores()
    quota = _cpu_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def memory_bytes() -> tuple[int, int] | None:
    """Return total and available memory in bytes, or None where unknown."""
    if sys.platform == "darwin":
        total = _sysctl("hw.memsize")
        return (int(total), 0) if total.isdigit() else None
    info = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    try:
        total_kib, available_kib = (int(info[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    except (KeyError, ValueError, IndexError):
        return None
    total, available = total_kib * 1024, available_kib * 1024
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():  # a container's own limit
        total, available = min(total, int(limit)), min(available, max(int(limit) - int(used), 0))
    return total, available


NVIDIA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
"""The library of NVIDIA's driver, as the system's loader finds it."""

_DRIVER_FAULTS = {
    100: "there is no GPU",
    802: "the GPUs' links are still being set up",
    803: "the driver in the kernel and its library differ, so restart the machine",
    804: "the GPU does not support this library, so update the driver",
    999: "the GPU failed, look at `dmesg`",
}
"""The results of `cuInit` in words (NVIDIA, CUDA Driver API, `CUresult`)."""


@lru_cache(maxsize=1)
def nvidia_gpus() -> tuple[list[Gpu], str]:
    """Return the NVIDIA GPUs that the CUDA driver sees, and one line: the driver, or why there is none.

    The driver's own library is asked, so that neither torch nor a CUDA toolkit is needed.
    """
    try:
        cuda = ctypes.CDLL(NVIDIA_DRIVER)
    except OSError:
        return [], f"no NVIDIA driver ({NVIDIA_DRIVER} not found)"
    if code := cuda.cuInit(0):
        why = _DRIVER_FAULTS.get(code, "no reason is known")
        return [], f"the NVIDIA driver is installed but does not start (cuInit: CUDA error {code}: {why})"
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = [_gpu(cuda, index) for index in range(count.value)]
    return gpus, f"CUDA driver {version.value // 1000}.{version.value % 1000 // 10}"


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    text = ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(text, len(text), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(text.value.decode(errors="replace"), (capability[0], capability[1]), memory.value)


def _physical_cores() -> int | None:
    """Count the physical cores behind the hardware threads of this process; None where the system does not tell."""
    if sys.platform == "darwin":
        fast = _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu")
        return int(fast) if fast.isdigit() else None
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = {
        _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in os.sched_getaffinity(0)
    }
    return None if "" in cores else len(cores)


def _cpu_quota() -> float | None:
    """Return the cores that the control group grants (version 2, else version 1), or None where there is no limit."""
    fields = _read("/sys/fs/cgroup/cpu.max").split()
    if not fields:
        folder = "/sys/fs/cgroup/cpu/cpu.cfs_"
        fields = [_read(f"{folder}quota_us").strip(), _read(f"{folder}period_us").strip()]
    if len(fields) == 2 and fields[0].isdigit() and fields[1].isdigit() and int(fields[1]) > 0:
        return int(fields[0]) / int(fields[1])
    return None


def _cpuinfo_field(info: str, key: str) -> str:
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _sysctl(key: str) -> str:
    try:
        found = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
