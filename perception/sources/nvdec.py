"""Decoding on an NVIDIA GPU (NVDEC) through FFmpeg, where there is one that can; else on the CPU, which is no error.

Decoded pictures come back to the host as NV12 or P010, so everything behind the decoder is the same for both.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Literal, get_args

import av
import av.error
from av.codec.hwaccel import HWAccel

from perception.common import hardware
from perception.errors import UsageError
from perception.sources.base import log

Decoding = Literal["auto", "cpu", "nvdec"]
"""``auto``: NVDEC where there is an NVIDIA GPU, and the CPU for what it cannot decode."""


_LEAST_AV = 18
"""Before it, PyAV copied pixels and time stamp of a frame from the GPU, and nothing else of it."""


@lru_cache(maxsize=1)
def nvdec_fault() -> str:
    """Why this machine cannot decode on a GPU, or empty where it can."""
    gpus, driver = hardware.nvidia_gpus()
    if not gpus:
        return driver
    if int(av.__version__.partition(".")[0]) < _LEAST_AV:
        lost = "loses the colours and the rotation of what NVDEC decodes"
        return f"PyAV {av.__version__} {lost}; install {_LEAST_AV} or later"
    library = "nvcuvid.dll" if sys.platform == "win32" else "libnvcuvid.so.1"
    try:
        ctypes.CDLL(library)
    except OSError:
        # a Jetson has no such library at all; a container has it if it was asked for
        return f"{library} is not there (a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility,video)"
    try:
        av.CodecContext.create("h264", "r", hwaccel=HWAccel("cuda", options=_shared_context()))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return f"FFmpeg cannot use the GPU: {getattr(error, 'strerror', None) or error}"
    return ""


def accelerator(decoding: str, where: str) -> HWAccel | None:
    """Return the accelerator for `av.open`; None to decode on the CPU.

    Args:
        decoding: one of `Decoding`.
        where: what will be decoded, for the log.

    Raises:
        UsageError: an unknown kind of decoding.
    """
    if decoding not in get_args(Decoding):
        raise UsageError(f"unknown decoder {decoding!r}; choose one of: {', '.join(get_args(Decoding))}")
    if decoding == "cpu" or (decoding == "auto" and not hardware.nvidia_gpus()[0]):
        return None
    if fault := nvdec_fault():
        log.warning("%s: decoded on the CPU and not by NVDEC: %s", where, fault)
        return None
    return HWAccel("cuda", allow_software_fallback=True, options=_shared_context())


def _shared_context() -> dict[str, object]:
    """Make the GPU's primary context the calling thread's; returns the options with which FFmpeg takes that one.

    Engines take it, too. A context of its own for each source would cost memory, and the GPU would switch between
    them. FFmpeg's option ``primary_ctx`` would not do: it refuses one whose flags are not those that it would set.
    """
    context = _primary_context()
    if context is None or ctypes.CDLL(hardware.NVIDIA_DRIVER).cuCtxSetCurrent(context):
        return {}  # it makes one
    return {"current_ctx": "1"}


@lru_cache(maxsize=1)
def _primary_context() -> ctypes.c_void_p | None:
    """Return the first GPU's primary context, which then lasts as long as the process; None where there is none."""
    try:
        cuda = ctypes.CDLL(hardware.NVIDIA_DRIVER)
    except OSError:
        return None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    return None if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) else context
