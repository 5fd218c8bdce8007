"""Numba kernels that turn network outputs into results: boxes, class masks, overlays."""

from __future__ import annotations

from perception.common.phases import phase

_KERNELS = (
    "perception.postprocess.segmentation",
    "perception.postprocess.suppression",
    "perception.picture.resize",
    "perception.postprocess.masks",
    "perception.postprocess.label_places",
)
"""Modules of kernels, the one that compiles longest first."""


def warmup() -> None:
    """Compile every kernel the runtime uses, or load it from the cache, so that no frame waits for it.

    Importing a kernel's module compiles it for its one signature; this imports them all. It takes well under a second
    with a warm cache, and half a minute of one core without. See `perception.common.jit.cache_directory` for where the
    cache is.
    """
    with phase("Numba"):
        from perception.common.jit import compile_ahead

    with phase("kernels"):
        compile_ahead(_KERNELS)
        import perception.picture.conversions
        import perception.picture.resize
        import perception.postprocess.detection
        import perception.postprocess.label_places
        import perception.postprocess.masks
        import perception.postprocess.segmentation  # noqa: F401
