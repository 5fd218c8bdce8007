"""Compiling the package's Numba kernels: once, cached on disk, never while a frame waits.

Every kernel is declared with explicit signatures, so that it is compiled (or taken from the cache) when its module
is imported, and one compiled version serves every memory layout that it can meet. Kernels release the GIL.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba.core import cgutils, types
from numba.core import config as numba_config
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from perception.common.hardware import usable_cores
from perception.common.private import private_cache, private_folder
from perception.common.version import __version__
from perception.common.waits import say_wait

logger = logging.getLogger("perception")

# Inputs are declared read-only and with any row stride, because a mutable or contiguous array converts to that and
# not the other way round. Rows of such arrays are still contiguous: kernels take them with `row`.
U8_ROWS_IN = types.Array(types.uint8, 2, "A", readonly=True)
U8_ROWS = types.Array(types.uint8, 2, "A")
U8_2D = types.Array(types.uint8, 2, "C")
U16_1D = types.Array(types.uint16, 1, "C")
U16_2D = types.Array(types.uint16, 2, "C")
I32_1D = types.Array(types.int32, 1, "C")
I64_1D = types.Array(types.int64, 1, "C")
F32_1D = types.Array(types.float32, 1, "C")
F32_2D = types.Array(types.float32, 2, "C")
F32_2D_IN = types.Array(types.float32, 2, "C", readonly=True)
F32_1D_IN = types.Array(types.float32, 1, "C", readonly=True)
F32_3D_IN = types.Array(types.float32, 3, "C", readonly=True)

config: Any = numba_config  # its attributes are made at run time

KERNELS: list[Any] = []
"""Every compiled kernel, in the order of import."""


def _load_typing() -> None:
    """Let Numba load what it knows of NumPy without SciPy's BLAS, which it would import only to see whether it could.

    That takes a third of a second, and no kernel here multiplies matrices. For one that does, of anybody else's, it is
    still imported.
    """
    if "scipy.linalg" in sys.modules or find_spec("scipy") is None:
        return
    try:
        from numba.np import linalg

        real = linalg.ensure_blas
        linalg.ensure_blas = lambda: None
        try:
            from numba.np import arraymath
        finally:
            linalg.ensure_blas = real
        arraymath.ensure_blas = real
    except (ImportError, AttributeError):  # of another version of Numba: it does as it likes
        logger.debug("Numba loads SciPy", exc_info=True)


_load_typing()

_changing = threading.RLock()
"""Held while Numba's settings are changed: threads of a server import modules of kernels when they need them."""

_options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_inner: dict[str, Any] = _options | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # compile less

helper = numba.njit(**_inner)
"""Decorator of a function that kernels call."""
inline_helper = numba.njit(**_inner, forceinline=True)
"""The same for small ones: a call that passes a dozen arrays costs more than they do."""


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that compiles a function for one signature now, from the disk cache where that has it.

    A cache that is corrupt or cannot be written costs a compilation and a log line, never an error.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        with _changing:
            return compiled_from(function)

    def compiled_from(function: Callable[..., Any]) -> Any:
        before = config.CACHE_DIR
        config.CACHE_DIR = before or cache_directory() or ""
        try:
            if not config.CACHE_DIR:
                raise OSError("no writable directory for the cache")
            if not before and not os.environ.get("NUMBA_CACHE_DIR"):
                config.CACHE_DIR = str(Path(config.CACHE_DIR) / _source_key(function))
            compiled = numba.njit(signature, cache=True, **_options)(function)
        except Exception as error:  # unpickling a damaged cache file can raise anything
            logger.warning("kernel %s is compiled without a cache: %s", function.__name__, error)
            compiled = numba.njit(signature, **_options)(function)
        finally:
            config.CACHE_DIR = before  # other users of Numba in this process keep their own
        KERNELS.append(compiled)
        return compiled

    return decorate


_directory: list[str | None] = []


def cache_directory() -> str | None:
    """Return the folder in which compiled kernels are kept, or None where nothing can be written.

    ``NUMBA_CACHE_DIR`` if set; else the user's cache directory, or a private directory for temporary files. In these,
    subdirectories named after the kernels' source code keep versions apart: Numba itself does not notice when a
    function that a kernel calls has changed.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return os.environ["NUMBA_CACHE_DIR"]
    if not _directory:
        _directory.append(_find_directory())
    return _directory[0]


def _find_directory() -> str | None:
    for base in (private_cache, _private_temporary):
        try:
            folder = base()
            if folder is None:
                continue
            path = private_folder(folder / "numba" / __version__)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError:
            continue
        return str(path)
    return None


def _private_temporary() -> Path | None:
    """Return a temporary directory that only this user can write to: cache files are pickles, so they run code."""
    user = os.getuid() if hasattr(os, "getuid") else None
    path = Path(tempfile.gettempdir()) / f"perception-{user if user is not None else 'cache'}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(status.st_mode) or (user is not None and (status.st_uid != user or status.st_mode & 0o022)):
        return None
    return path


def _source_key(function: Callable[..., Any]) -> str:
    """Return a key of the source code that ``function`` is compiled from: its module's and that of what it calls."""
    digest = hashlib.sha256()
    for path in sorted(_source_files(function, {__file__})):
        digest.update(_file_digest(path))
    return digest.hexdigest()[:12]


def _source_files(function: Callable[..., Any], known: set[str]) -> set[str]:
    """``known``, with the files of ``function`` and of the compiled functions that its module refers to."""
    file = function.__code__.co_filename
    if file not in known:
        known.add(file)
        for value in list(function.__globals__.values()):
            called = getattr(value, "py_func", None)
            if called is not None:
                _source_files(called, known)
    return known


@cache
def _file_digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


def compile_ahead(modules: Sequence[str]) -> None:
    """Fill the disk cache with the kernels of some modules, where it has none: in several processes, one a core.

    Compiling is Python's own work, which threads do not share. Where that is not possible, nothing is done: the kernels
    are then compiled when their modules are imported.

    Args:
        modules: names of modules with kernels, the one that takes longest first.
    """
    folder, cores = cache_directory(), usable_cores()
    if folder is None or cores < 2 or not sys.executable or getattr(sys, "frozen", False):
        return
    sources = [Path(spec.origin) for name in modules if (spec := find_spec(name)) and spec.origin]
    known = {path for source in sources for path in source.parent.glob("*.py")} | {Path(__file__)}
    digest = hashlib.sha256(f"{numba.__version__} {sys.version} {get_host_cpu_name()}".encode())
    for path in sorted(known):
        digest.update(_file_digest(str(path)))
    done = Path(folder) / f"compiled-{digest.hexdigest()[:16]}"
    if done.exists():
        return
    say_wait("kernels are compiled, which takes up to a minute")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    nothing: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    waiting, running = [*modules], list[subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < cores:
                command = [sys.executable, "-c", f"import {waiting.pop(0)}"]
                running.append(subprocess.Popen(command, env=environment, **nothing))
            time.sleep(0.02)  # not in threads: a process that ends would wait for them
            running = [process for process in running if process.poll() is None]
        done.touch()
    except OSError as error:
        logger.debug("kernels are not compiled ahead: %s", error)


def _row(typingctx: Any, array: Any, y: Any) -> Any:
    """``array[y]`` of a 2-D array with any row stride, as a contiguous 1-D array that borrows its memory.

    Typed as contiguous so that loops over it vectorise; the caller answers for adjacent elements in a row.
    """
    if not isinstance(array, types.Array) or array.ndim != 2:
        return None
    result = types.Array(array.dtype, 1, "C", readonly=not array.mutable)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = make_array(signature.args[0])(context, builder, args[0])
        out = make_array(result)(context, builder)
        offset = builder.mul(args[1], builder.extract_value(source.strides, 0))
        populate_array(
            out,
            data=cgutils.pointer_add(builder, source.data, offset),
            shape=cgutils.pack_array(builder, [builder.extract_value(source.shape, 1)]),
            strides=cgutils.pack_array(builder, [source.itemsize]),
            itemsize=source.itemsize,
            meminfo=ir.Constant(source.meminfo.type, None),
        )
        return out._getvalue()

    return result(array, types.intp), codegen


row: Any = intrinsic(_row)
