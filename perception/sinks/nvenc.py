"""The encoder of an NVIDIA GPU (NVENC): whether this machine has one that works."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

from perception.common import hardware

NVENC = "h264_nvenc"
"""FFmpeg's name of it, for H.264."""


@lru_cache(maxsize=1)
def nvenc_fault() -> str:
    """Why videos cannot be encoded on a GPU, or empty where they can; A100, H100 and H200, for instance, have none."""
    import av

    gpus, driver = hardware.nvidia_gpus()
    if not gpus:
        return driver
    try:
        context: Any = av.CodecContext.create(NVENC, "w")
        context.width, context.height, context.pix_fmt = 640, 360, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.open()
    except (ValueError, OSError) as error:
        return f"{NVENC} does not open: {error}"
    return ""
