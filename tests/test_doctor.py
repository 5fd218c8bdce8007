"""The doctor tells what is there, names what is missing, and never falls over a broken installation."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from perception.common import hardware
from perception.diagnostics.doctor import Check, diagnose
from perception.sinks import nvenc
from perception.sources import nvdec
from tests.models import write_model

ARM = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU implementer\t: 0x41\n"
XEON = (
    "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold\nflags\t\t: fpu avx2 fma avx512f avx512_vnni avx512_bf16 "
    "amx_bf16 amx_int8\n\nprocessor\t: 1\nmodel name\t: Intel(R) Xeon(R) Gold\n"
)


@pytest.fixture(autouse=True)
def forget() -> Any:
    """What is asked once per process is asked anew in each test."""
    cached = (hardware.cpu_name, hardware.cpu_features, hardware.usable_cores, hardware.nvidia_gpus)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def findings(group: str) -> dict[str, Check]:
    return {check.name: check for check in diagnose() if check.group == group}


def files(monkeypatch: pytest.MonkeyPatch, contents: dict[str, str]) -> None:
    monkeypatch.setattr(hardware, "_read", lambda path: contents.get(path, ""))


def test_a_working_machine() -> None:
    checks = diagnose()
    assert {c.group for c in checks} == {"machine", "engines", "video", "cameras", "packages", "folders", "models"}
    assert all(c.status in ("ok", "warn", "missing") and c.name and "\n" not in c.detail for c in checks)
    assert len({(c.group, c.name) for c in checks}) == len(checks)
    engines = findings("engines")
    assert engines["openvino"].status == "ok" and version("openvino") in engines["openvino"].detail
    assert "fp32" in engines["openvino"].detail
    packages = findings("packages")
    assert packages["av"].detail == version("av") and packages["numpy"].status == "ok"
    video = findings("video")
    assert video["h264"].status == "ok" and "264" in video["h264"].detail


def test_what_is_missing_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.engines.torch.find_spec", lambda _: None)
    monkeypatch.setattr("perception.engines.openvino.find_spec", lambda _: None)

    def lacking(package: str) -> str:
        if package == "pyarrow":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr("perception.diagnostics.doctor.version", lacking)
    engines, packages = findings("engines"), findings("packages")
    assert engines["torch"].status == engines["openvino"].status == "missing"
    assert "pip install '" in engines["torch"].hint
    assert "pip install openvino" in engines["openvino"].hint
    assert (packages["pyarrow"].status, packages["pyarrow"].hint) == ("missing", "`pip install pyarrow`")


def test_opencv_by_another_name_is_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    def headless(package: str) -> str:
        if package == "opencv-python":
            raise PackageNotFoundError(package)
        return "4.11.0" if package == "opencv-python-headless" else version(package)

    monkeypatch.setattr("perception.diagnostics.doctor.version", headless)
    check = findings("packages")["opencv-python"]
    assert (check.status, check.detail) == ("ok", "4.11.0")


def test_a_library_that_does_not_load_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # import cv2 raises ImportError
    checks = diagnose()
    broken = [c for c in checks if c.group == "cameras" and c.status == "warn"]
    assert len(broken) == 1 and "cv2" in broken[0].detail
    assert any(c.group == "models" for c in checks)


def test_models_good_and_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path))
    folder = tmp_path / "models"
    folder.mkdir()
    write_model(folder / "colors.onnx", detection=True)
    (folder / "broken.onnx").write_bytes(b"nothing")
    models = findings("models")
    assert models["colors"].status == "ok"
    assert models["colors"].detail == "segmentation, detection, 64x48, licence MIT"
    assert models["broken"].status == "warn" and "not an ONNX file" in models["broken"].detail
    assert str(folder) in findings("folders")["your models"].detail


def test_cpu_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    files(monkeypatch, {"/proc/cpuinfo": XEON})
    assert hardware.cpu_name() == "Intel(R) Xeon(R) Gold"
    features = hardware.cpu_features()
    assert features is not None
    assert [f for f, there in features.items() if not there] == ["avx_vnni"]


def test_cpu_of_a_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    board = "/sys/firmware/devicetree/base/model"
    files(monkeypatch, {"/proc/cpuinfo": ARM, board: "NVIDIA Jetson Orin Nano\0"})
    assert hardware.cpu_name() == "NVIDIA Jetson Orin Nano"
    features = hardware.cpu_features()
    assert features is not None
    assert [f for f, there in features.items() if there] == ["neon", "fp16", "dotprod"]


def test_cpu_of_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "machdep.cpu.brand_string": "Apple M2", "hw.optional.neon": "1", "hw.optional.arm.FEAT_BF16": "1",
        "hw.optional.arm.FEAT_I8MM": "0", "hw.perflevel0.physicalcpu": "4", "hw.memsize": str(8 << 30),
    }  # fmt: skip
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(hardware, "_sysctl", lambda key: answers.get(key, ""))
    files(monkeypatch, {})
    assert hardware.cpu_name() == "Apple M2"
    assert hardware.cpu_features() == {"neon": True, "bf16": True, "i8mm": False}
    assert hardware.usable_cores() == 4
    memory = hardware.memory_bytes()
    assert memory is not None and memory[0] == 8 << 30


def test_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    files(monkeypatch, {})
    monkeypatch.setattr(sys, "platform", "linux")
    assert hardware.cpu_features() is None
    assert hardware.cpu_name()
    assert hardware.memory_bytes() is None
    assert hardware.usable_cores() == hardware.logical_cores() >= 1
    assert findings("machine")["cpu features"].status == "warn"


@pytest.mark.parametrize(
    ("contents", "cores"),
    [
        ({}, 4),
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, 4),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 4),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_cores_are_physical_and_within_the_quota(
    contents: dict[str, str], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight hardware threads, two to a core."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    topology = {
        f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 4},{cpu % 4 + 4}\n"
        for cpu in range(8)
    }
    files(monkeypatch, topology | contents)
    assert hardware.logical_cores() == 8
    assert hardware.usable_cores() == cores


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    host = {"/proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n"}
    files(monkeypatch, host)
    assert hardware.memory_bytes() == (16 << 30, 8 << 30)
    files(monkeypatch, host | {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "5\n"})
    assert hardware.memory_bytes() == (16 << 30, 8 << 30)
    group = {"/sys/fs/cgroup/memory.max": f"{2 << 30}\n", "/sys/fs/cgroup/memory.current": f"{1 << 30}\n"}
    files(monkeypatch, host | group)
    assert hardware.memory_bytes() == (2 << 30, 1 << 30)


class FakeCuda:
    """Stands in for the CUDA driver's library: two GPUs, or a driver that does not start."""

    def __init__(self, code: int = 0) -> None:
        self._code = code

    def cuInit(self, flags: int) -> int:
        return self._code

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13020
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, text: Any, size: int, device: Any) -> int:
        text.value = f"GPU {device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = 8 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: 8, 76: 9}[attribute]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        return 999


DRIVER = ("libcuda.so.1", "nvcuda.dll", "libnvcuvid.so.1", "nvcuvid.dll")


def give_driver(monkeypatch: pytest.MonkeyPatch, make: Callable[[], FakeCuda]) -> None:
    """Let the libraries of the NVIDIA driver be what ``make`` gives.

    All others are loaded as ever: a package that finds its own missing at its first import has none for good.
    """
    load = ctypes.CDLL

    def load_or_make(name: Any, *arguments: Any, **options: Any) -> Any:
        return make() if name in DRIVER else load(name, *arguments, **options)

    monkeypatch.setattr("ctypes.CDLL", load_or_make)


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    give_driver(monkeypatch, FakeCuda)
    gpus, driver = hardware.nvidia_gpus()
    assert [(g.name, g.capability, g.memory) for g in gpus] == [("GPU 0", (8, 9), 8 << 30), ("GPU 1", (8, 9), 8 << 30)]
    assert driver == "CUDA driver 13.2"
    machine = findings("machine")
    assert machine["nvidia gpu 1"].detail == "GPU 1, 8 GiB, compute capability 8.9, CUDA driver 13.2"
    asked = (nvdec.nvdec_fault, nvdec._primary_context, nvenc.nvenc_fault)
    for found in asked:
        found.cache_clear()
    try:
        video = findings("video")
    finally:
        for found in asked:
            found.cache_clear()
    assert "h264_nvenc" in video["nvenc"].detail
    assert video["nvdec"].detail.startswith("FFmpeg cannot use the GPU: ")  # which it really has tried


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> FakeCuda:
        raise OSError("libcuda.so.1: cannot open shared object file")

    give_driver(monkeypatch, missing)
    assert hardware.nvidia_gpus()[0] == []
    hardware.nvidia_gpus.cache_clear()
    give_driver(monkeypatch, lambda: FakeCuda(code=100))
    gpus, why = hardware.nvidia_gpus()
    assert gpus == [] and "100" in why
