"""Numba kernels that turn network outputs into results: boxes, class masks, overlays."""

from __future__ import annotations


def warmup() -> None:
    """Compile every kernel the runtime uses, or load it from the cache, so that no frame waits for it.

    Importing a kernel's module compiles it for its one signature; this imports them all. It takes well under a second
    with a warm cache. See `perception.common.jit.cache_directory` for where the cache is.
    """
    import perception.picture.conversions
    import perception.picture.resize
    import perception.postprocess.detection
    import perception.postprocess.masks
    import perception.postprocess.segmentation  # noqa: F401
