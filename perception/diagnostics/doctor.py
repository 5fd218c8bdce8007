"""Find out what this machine can run, what is missing, and how to get it.

    for check in diagnose():
        print(check.group, check.name, check.status, check.detail, check.hint)

Nothing here raises: a broken installation is a finding.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from perception.common import hardware
from perception.common.files import file_size
from perception.common.telemetry import import_openvino
from perception.common.version import __version__
from perception.errors import PerceptionError

Status = Literal["ok", "warn", "missing"]

CODECS = ("h264", "hevc", "vp9", "av1")

_PACKAGES = {
    "av": "",
    "numba": "",
    "numpy": "",
    "onnx": "",
    "opencv-python": "opencv-python-headless opencv-contrib-python opencv-contrib-python-headless",
    "platformdirs": "",
    "pyarrow": "",
    "pydantic": "",
    "pyyaml": "",
    "rich": "",
    "typer": "",
}
"""Packages that the runtime needs, each with those that can replace it."""

_LOW_MEMORY = 2 << 30
_LOW_DISK = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """A finding.

    Attributes:
        group: machine, engines, video, cameras, packages, folders or models.
        name: what was checked.
        status: ``ok``; ``warn``: works, but not as well as it could; ``missing``: not there.
        detail: what was found, one line.
        hint: what to do about it, or empty.
    """

    group: str
    name: str
    status: Status
    detail: str
    hint: str = ""


def diagnose() -> list[Check]:
    """Check the machine, the engines, the codecs, the cameras, the packages, the folders and the models."""
    checks: list[Check] = []
    for group, look in _GROUPS.items():
        try:
            checks.extend(look())
        except Exception as error:  # a half-installed package can raise anything when it is asked
            said = " ".join(f"{type(error).__name__}: {error}".split())
            checks.append(Check(group, "check", "warn", f"this check failed: {said}"))
    return checks


def _machine() -> Iterator[Check]:
    group = "machine"
    yield Check(group, "perception", "ok", f"{__version__}, Python {platform.python_version()} at {sys.executable}")
    yield Check(group, "system", "ok", platform.platform())
    yield Check(group, "cpu", "ok", hardware.cpu_name())
    features = hardware.cpu_features()
    if features is None:
        yield Check(group, "cpu features", "warn", "unknown on this system")
    else:
        have = [name for name, there in features.items() if there]
        lack = [name for name, there in features.items() if not there]
        slow = platform.machine().lower() in ("x86_64", "amd64") and not features.get("avx2")
        detail = f"{', '.join(have) or 'none'}" + (f" (not {', '.join(lack)})" if lack else "")
        hint = "networks are slow without AVX2" if slow else ""
        yield Check(group, "cpu features", "warn" if slow else "ok", detail, hint)
    cores, threads = hardware.usable_cores(), hardware.logical_cores()
    hint = "decoding, inference and encoding share one core" if cores == 1 else ""
    detail = f"{cores} usable, {threads} hardware threads{_load()}"
    yield Check(group, "cores", "warn" if hint else "ok", detail, hint)
    memory = hardware.memory_bytes()
    if memory is not None:
        total, free = memory
        hint = "close other programs" if free < _LOW_MEMORY else ""
        detail = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB available"
        yield Check(group, "memory", "warn" if hint else "ok", detail, hint)
    gpus, driver = hardware.nvidia_gpus()
    if not gpus:
        yield Check(group, "nvidia gpu", "missing", driver, "networks run on the CPU")
    for index, gpu in enumerate(gpus):
        major, minor = gpu.capability
        detail = f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB, compute capability {major}.{minor}, {driver}"
        yield Check(group, f"nvidia gpu {index}", "ok", detail)


def _load() -> str:
    try:
        return f", load {os.getloadavg()[0]:.1f}"
    except (AttributeError, OSError):  # not on Windows
        return ""


def _engines() -> Iterator[Check]:
    from perception.engines import ENGINES, engine_status

    for name in ENGINES:
        available, reason = engine_status(name)
        fact, _, advice = reason.partition("; ")
        if available and name == "openvino":
            fact = f"{fact}, {_openvino_devices()}"
        hint = advice or ("the reference engine, for comparisons only" if name == "torch" and available else "")
        yield Check("engines", name, "ok" if available else "missing", fact, hint)


def _openvino_devices() -> str:
    core = import_openvino().Core()
    devices = []
    for device in core.available_devices:
        capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        native = [name for name in ("fp32", "bf16", "fp16", "int8") if name.upper() in capabilities]
        devices.append(f"{device} ({', '.join(native)})")
    return ", ".join(devices)


def _video() -> Iterator[Check]:
    import av

    group = "video"
    yield Check(
        group, "FFmpeg", "ok", f"libavcodec {_dotted(av.library_versions['libavcodec'])} in PyAV {av.__version__}"
    )
    for name in CODECS:
        decoder, encoder = _codec(name, "r"), _codec(name, "w")
        status: Status = "ok" if decoder and encoder else "missing"
        hint = "" if status == "ok" else "install PyAV from its wheel (`pip install av`), which has all of these"
        detail = f"decoder {decoder or 'none'}, encoder {encoder or 'none'}"
        yield Check(group, name, status, detail, hint)
    if hardware.nvidia_gpus()[0]:
        from perception.sinks.nvenc import nvenc_fault

        fault = nvenc_fault()
        if fault:
            yield Check(group, "nvenc", "warn", fault, "videos are encoded on the CPU")
        else:
            yield Check(group, "nvenc", "ok", "h264_nvenc works")
        from perception.sources.nvdec import nvdec_fault

        fault = nvdec_fault()
        if fault:
            yield Check(group, "nvdec", "warn", fault, "videos are decoded on the CPU")
        else:
            yield Check(group, "nvdec", "ok", "decoding works on the GPU")


def _codec(name: str, mode: Literal["r", "w"]) -> str:
    """Return the name of FFmpeg's decoder (r) or encoder (w) for a format; empty if there is none."""
    import av

    try:
        return str(av.Codec(name, mode).name)
    except ValueError:  # PyAV's UnknownCodecError
        return ""


def _cameras() -> Iterator[Check]:
    group = "cameras"
    devices = sorted(Path("/dev").glob("video*")) if sys.platform.startswith("linux") else []
    unreadable = [str(d) for d in devices if not os.access(d, os.R_OK | os.W_OK)]
    if unreadable:
        hint = "add yourself to the group that owns it: `sudo usermod -aG video $USER`, and log in again"
        yield Check(group, "devices", "warn", f"no permission to open {', '.join(unreadable)}", hint)
    elif devices:
        yield Check(group, "devices", "ok", ", ".join(map(str, devices)))
    elif sys.platform.startswith("linux"):
        hint = "plug one in; in a container, pass it with `--device /dev/video0`"
        yield Check(group, "devices", "missing", "no /dev/video*", hint)
    else:
        yield Check(group, "devices", "ok", "cameras are numbered from 0 on this system")
    import cv2

    build = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in cv2.getBuildInformation().splitlines())
    }
    interfaces = [
        name
        for name, key in (("V4L2", "v4l/v4l2"), ("GStreamer", "GStreamer"), ("AVFoundation", "AVFoundation"))
        if build.get(key, "NO").startswith("YES")
    ]
    hint = ""
    if "GStreamer" not in interfaces and platform.machine() == "aarch64":
        hint = "cameras on a Jetson's CSI connector need the system's OpenCV, which has GStreamer"
    yield Check(group, "OpenCV", "ok", f"{cv2.__version__}, {', '.join(interfaces) or 'no camera interface'}", hint)


def _packages() -> Iterator[Check]:
    for name, others in _PACKAGES.items():
        found = next((v for v in map(_version, (name, *others.split())) if v), "")
        hint = "" if found else f"`pip install {name}`"
        yield Check("packages", name, "ok" if found else "missing", found or "not installed", hint)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _folders() -> Iterator[Check]:
    from perception.common.jit import cache_directory
    from perception.engines.cache import compiled_models_dir
    from perception.weights.library import user_models_dir

    kernels = cache_directory()
    if kernels is None:
        yield Check("folders", "compiled kernels", "warn", "no writable folder for them", "set NUMBA_CACHE_DIR to one")
    else:
        yield _folder("compiled kernels", Path(kernels))
    yield _folder("compiled models", compiled_models_dir("openvino"))
    models = user_models_dir()
    count = len(list(models.glob("*.onnx"))) if models.is_dir() else 0
    yield Check(
        "folders",
        "your models",
        "ok",
        f"{models} (models: {count})",
        "put .onnx files here to use them by name",
    )


def _folder(name: str, folder: Path) -> Check:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Check("folders", name, "warn", f"{folder} is not writable", "everything works, but starts slower")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
    free = shutil.disk_usage(there).free
    hint = f"{free / 2**20:.0f} MB left on the disk" if free < _LOW_DISK else ""
    return Check("folders", name, "warn" if hint else "ok", f"{folder} ({file_size(size)})", hint)


def _models() -> Iterator[Check]:
    from perception.card import read_card
    from perception.weights.library import DEFAULT_MODEL, model_paths

    paths = model_paths()
    if DEFAULT_MODEL not in paths:
        hint = "reinstall perception"
        yield Check("models", DEFAULT_MODEL, "missing", "the default model is missing", hint)
    for name, path in paths.items():
        try:
            card = read_card(path)
        except PerceptionError as error:
            yield Check("models", name, "warn", str(error), "remove or replace the file")
            continue
        metrics = next((f", {key} {value:.3f}" for key, value in card.metrics.items()), "")
        size = f"{card.input.width}x{card.input.height}"
        yield Check("models", name, "ok", f"{', '.join(card.tasks)}, {size}, licence {card.licence}{metrics}")


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


_GROUPS: dict[str, Callable[[], Iterator[Check]]] = {
    "machine": _machine,
    "engines": _engines,
    "video": _video,
    "cameras": _cameras,
    "packages": _packages,
    "folders": _folders,
    "models": _models,
}
