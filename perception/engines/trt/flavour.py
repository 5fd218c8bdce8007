"""The two TensorRTs and their versions: whatever differs between them is here, and why.

- ``tensorrt`` 10.3 to 11.x, for servers and Jetson: tunes an engine on the GPU that it builds for. Up to 10.x a network
  is strongly typed only if a flag says so; 11 knows nothing else, but still takes the flag.
- ``tensorrt_rtx`` (TensorRT for RTX), for desktops: builds ahead of time, without a GPU, for named compute
  capabilities, and compiles the last bit at the first run. It keeps that in a runtime cache, where the other has a
  timing cache, and captures CUDA graphs by itself. Setting a workspace limit is an error there, so none is set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from perception.common import hardware
from perception.common.distribution import install_hint
from perception.common.private import read_private
from perception.errors import EngineError, UsageError

FlavourName = Literal["tensorrt", "rtx"]

_MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_EXTRAS = {"tensorrt": "tensorrt", "rtx": "tensorrt-rtx"}
_SUPPORTED = {"tensorrt": ((10, 3), (12, 0)), "rtx": ((1, 7), (2, 0))}


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that an engine was optimised on and depends on: another one needs another engine.

    Attributes:
        gpu: name of the GPU.
        capability: its compute capability, such as ``8.9``.
        driver: version of the kernel driver, or empty where it is not told.
        cuda: newest CUDA version that the driver knows.
        l4t: release of Jetson Linux, empty elsewhere.
    """

    gpu: str
    capability: str
    driver: str
    cuda: str
    l4t: str


class Flavour:
    """One installed TensorRT.

    Attributes:
        name: ``tensorrt`` or ``rtx``.
        trt: the Python module.
        version: its full version.
    """

    def __init__(self, name: FlavourName) -> None:
        self.name = name
        try:
            self.trt: Any = import_module(_MODULES[name])
        except Exception as error:  # bindings without their libraries raise whatever the loader does
            raise EngineError(f"{_MODULES[name]} is installed but cannot be loaded: {error}") from error
        self.version = str(self.trt.__version__)
        lowest, beyond = _SUPPORTED[name]
        if not lowest <= _numbers(self.version)[:2] < beyond:
            raise EngineError(
                f"{_MODULES[name]} {self.version} is not supported: use "
                f"{'.'.join(map(str, lowest))} or later, below {beyond[0]}"
            )

    @property
    def title(self) -> str:
        """Name and version for people."""
        return f"TensorRT{' for RTX' if self.name == 'rtx' else ''} {self.version}"

    @property
    def portable(self) -> bool:
        """True where engines are built for compute capabilities and not optimised on one machine."""
        return self.name == "rtx"

    @property
    def cuda(self) -> int | None:
        """Major version of CUDA that the package was built with; None where the system brings it, as on a Jetson."""
        for major in (11, 12, 13, 14):
            try:
                package_version(f"{_MODULES[self.name]}-cu{major}-bindings")
            except PackageNotFoundError:
                continue
            return major
        return None

    def driver_fault(self, driver: str) -> str:
        """Why a driver, as `hardware.nvidia_gpus` tells it, cannot run this; empty where it can.

        A driver runs what was built with any minor version of the CUDA that it knows, and nothing newer.
        """
        known = (_numbers(driver) or (0,))[0]
        return _too_old(driver, self.title, self.cuda, f"install the package for cu{known} where there is one")

    def create_network(self, builder: Any) -> Any:
        """Create an empty, strongly typed network."""
        return builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def known_capabilities(self) -> list[str]:
        """Return the compute capabilities that engines can be built for ahead of time, such as ``89`` for 8.9."""
        if not self.portable:
            return []
        names = self.trt.ComputeCapability.__members__
        return [name.removeprefix("SM") for name in names if name.startswith("SM")]

    def common_capabilities(self) -> tuple[str, ...]:
        """Return the compute capabilities to build for where nothing is named and there is no GPU: 8.0 and later.

        Turing (7.5) is left out, because engines that run there too are several times as large.
        """
        return tuple(name for name in self.known_capabilities() if not lacks_bf16(name))

    def set_capabilities(self, config: Any, capabilities: tuple[str, ...]) -> None:
        """Say what to build for; nothing said means the GPU of this machine.

        Raises:
            UsageError: this flavour builds for its own GPU only, or a capability that it does not know.
        """
        if not capabilities:
            return
        if not self.portable:
            raise UsageError(f"{self.title} builds for the GPU of this machine only; `flavour=rtx` builds for others")
        known = self.known_capabilities()
        unknown = [c for c in capabilities if c not in known]
        if unknown:
            raise UsageError(
                f"{self.title} does not support compute capability {', '.join(unknown)}; "
                f"it supports: {', '.join(known)}"
            )
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(self.trt.ComputeCapability.__members__[f"SM{capability}"], index)

    def use_timing_cache(self, config: Any, path: Path | None) -> None:
        """Let the builder remember, over builds, how fast each kernel is on this machine."""
        if self.portable or path is None:
            return
        cache = config.create_timing_cache(read_private(path))
        if cache is not None:  # None for what another version wrote
            config.set_timing_cache(cache, ignore_mismatch=False)

    def timing_cache(self, config: Any) -> bytes:
        """Return the measurements of the builder, to be given to `use_timing_cache` next time; may be empty."""
        cache = None if self.portable else config.get_timing_cache()
        return b"" if cache is None else bytes(cache.serialize())

    def create_context(self, engine: Any, runtime_cache: bytes, *, own_memory: bool = True) -> tuple[Any, Any]:
        """Create an execution context, and the runtime cache that it fills (None where this flavour has none).

        Args:
            engine: a loaded engine.
            runtime_cache: what an earlier one has filled; may be empty.
            own_memory: it allocates its scratch memory; else the caller gives it some before it is used.
        """
        trt = self.trt
        strategy = trt.ExecutionContextAllocationStrategy.STATIC
        if not own_memory:
            strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.name != "rtx":
            return engine.create_execution_context(strategy), None
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        # kernels for fixed shapes are captured and replayed as one launch
        config.cuda_graph_strategy = self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        cache = config.create_runtime_cache()
        if runtime_cache:
            cache.deserialize(runtime_cache)
        config.set_runtime_cache(cache)
        return engine.create_execution_context(config), cache


def kernels_fault(driver: str) -> str:
    """Why a driver, as `hardware.nvidia_gpus` tells it, cannot run what numba-cuda compiles; empty where it can.

    Numba compiles with the CUDA of its bindings, which need not be TensorRT's.
    """
    try:
        cuda = int(package_version("cuda-bindings").partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return ""  # the system brings it, as on a Jetson
    return _too_old(driver, "numba-cuda", cuda, "`pip install 'numba-cuda[cu12]'`")


def _too_old(driver: str, what: str, cuda: int | None, instead: str) -> str:
    known = _numbers(driver)
    if cuda is None or not known or known[0] >= cuda:
        return ""
    return (
        f"the NVIDIA driver is too old: it knows CUDA {'.'.join(map(str, known[:2]))}, and {what} needs {cuda}.0; "
        f"update the driver, or {instead}"
    )


def installed() -> list[FlavourName]:
    """Return the flavours whose packages are installed, the one for servers first."""
    return [name for name in get_args(FlavourName) if find_spec(_MODULES[name]) is not None]


def find_flavour(name: str = "auto") -> Flavour:
    """Find a flavour by name; ``auto`` is ``tensorrt`` where it is installed, else ``rtx``.

    Raises:
        UsageError: an unknown name, or not installed; says how to get it.
        EngineError: installed, but broken or of a version that is not supported.
    """
    names = get_args(FlavourName)
    if name not in ("auto", *names):
        raise UsageError(f"unknown flavour {name!r}; choose one of: auto, {', '.join(names)}")
    there = installed()
    for candidate in names:
        if name in ("auto", candidate) and candidate in there:
            return Flavour(candidate)
    if name == "auto":
        raise UsageError(not_installed())
    raise UsageError(f"{_MODULES[name]} is not installed; `{install_hint(_EXTRAS[name])}`")


def not_installed() -> str:
    """Say that no TensorRT is there, and how to get each."""
    return (
        f"TensorRT is not installed; `{install_hint('tensorrt-rtx')}` for desktop GPUs, "
        f"`{install_hint('tensorrt')}` for servers"
    )


def this_machine() -> Machine | None:
    """Describe the machine that engines depend on; None where there is no NVIDIA GPU."""
    gpus, cuda = hardware.nvidia_gpus()
    if not gpus:
        return None
    gpu = gpus[0]
    return Machine(
        gpu.name,
        f"{gpu.capability[0]}.{gpu.capability[1]}",
        _first_line("/sys/module/nvidia/version"),
        cuda,
        _first_line("/etc/nv_tegra_release"),
    )


def lacks_bf16(capability: str) -> bool:
    """True where a compute capability (``75``) is from before bfloat16, which came with 8.0."""
    return int(capability) < 80


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
