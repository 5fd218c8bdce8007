"""Kernels are compiled once, whatever the layout of the arrays, and a broken cache only costs time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from perception.common import jit
from perception.common.hardware import usable_cores
from perception.picture.conversions import planes_to_bgr
from perception.picture.letterbox import Letterbox
from perception.picture.resize import to_input
from perception.postprocess import warmup
from perception.postprocess.detection import decode, nms
from perception.postprocess.segmentation import class_counts, class_mask, overlay
from perception.types import Planes

ROOT = Path(__file__).parents[2]


def test_a_full_run_compiles_nothing_after_warmup() -> None:
    warmup()
    before = [len(k.signatures) for k in jit.KERNELS]
    assert len(before) >= 8
    box = Letterbox.fit(64, 48, 32, 24)
    logits = np.random.default_rng(0).normal(size=(5, 6, 8)).astype(np.float32)
    palette = np.zeros((5, 3), np.uint8)
    for pad in (0, 16):  # contiguous rows, and rows with padding
        for writable in (True, False):
            y = np.zeros((48, 64 + pad), np.uint8)[:, :64]
            u, v = (np.zeros((24, 32 + pad), np.uint8)[:, :32] for _ in range(2))
            for plane in (y, u, v):
                plane.flags.writeable = writable
            planes = Planes(y, u, v)
            image = planes_to_bgr(planes)
            out = Planes(np.zeros((48, 64 + pad), np.uint8)[:, :64], u.copy(), v.copy())
            overlay(planes, logits, box, palette, 0.5, out)
            out_image = np.empty_like(image)
            image.flags.writeable = writable
            overlay(image, logits, box, palette, 0.5, out_image)
            for mode in ("stretch", "letterbox"):
                to_input(planes, 30, 40, mode)  # type: ignore[arg-type]
                to_input(image, 30, 40, mode)  # type: ignore[arg-type]
    class_mask(logits, box)
    class_counts(logits, box)
    boxes, scores = np.zeros((7, 4), np.float32), np.zeros((7, 2), np.float32)
    for method in ("nms", "soft-linear", "soft-gaussian"):
        decode(boxes, scores, box, method=method, vote_iou=0.5)  # type: ignore[arg-type]
    nms(boxes, scores[:, 0], np.zeros(7, np.int32))
    assert [len(k.signatures) for k in jit.KERNELS] == before == [1] * len(before)


SCRIPT = """
import logging; logging.basicConfig(level=logging.WARNING)
import numpy as np
from perception.postprocess.runs import decode_runs, encode_runs
labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
assert (decode_runs(encode_runs(labels)[0], 3, 4) == labels).all()
from perception.common import jit
print(jit.cache_directory())
"""
WHERE = "from perception.common import jit; print(jit.cache_directory())"


def run(script: str, **environment: str) -> tuple[str, str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_cache_is_used_and_may_be_damaged(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    directory, _ = run(SCRIPT, XDG_CACHE_HOME=str(cache))
    assert Path(directory).is_relative_to(cache)
    files = sorted(cache.rglob("*.nb?"))
    assert {f.suffix for f in files} == {".nbi", ".nbc"}
    stamps = [f.stat().st_mtime_ns for f in files]
    run(SCRIPT, XDG_CACHE_HOME=str(cache))
    assert [f.stat().st_mtime_ns for f in files] == stamps  # nothing was compiled again
    for file in files:
        file.write_bytes(file.read_bytes()[:100] + b"damaged")
    _, log = run(SCRIPT, XDG_CACHE_HOME=str(cache))
    assert "without a cache" in log


def test_without_a_writable_cache_directory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    directory, _ = run(WHERE, XDG_CACHE_HOME=str(blocked), TMPDIR=str(elsewhere))
    assert Path(directory).is_relative_to(elsewhere)
    private = next(elsewhere.iterdir())
    assert private.stat().st_mode & 0o077 == 0
    private.chmod(0o777)  # as if somebody else could have put files there
    directory, _ = run(WHERE, XDG_CACHE_HOME=str(blocked), TMPDIR=str(elsewhere))
    assert directory == "None"


AHEAD = """
from pathlib import Path
from perception.commands.terminal import log_to_stderr
log_to_stderr()
from perception.common import jit
ahead = ("perception.postprocess.masks", "perception.postprocess.runs")
jit.compile_ahead(ahead)
import perception.postprocess.masks, perception.postprocess.runs
kernels = [kernel for kernel in jit.KERNELS if kernel.py_func.__module__ in ahead]
print(len(kernels), sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels))
print(*(path.stat().st_mtime_ns for path in Path(jit.cache_directory()).glob("compiled-*")))
"""


@pytest.mark.skipif(usable_cores() < 2, reason="one core compiles nothing in parallel")
def test_kernels_are_compiled_ahead_by_other_processes(tmp_path: Path) -> None:
    """Once: the process itself then finds them all in the cache, and a second one has nothing to do."""
    out, said = run(AHEAD, XDG_CACHE_HOME=str(tmp_path))
    first = out.splitlines()
    assert first[0] == "4 4"
    assert len(first[1].split()) == 1
    # nobody waits without being told, and a second time nobody waits
    assert said.strip() == "preparing for this machine, once: kernels are compiled, which takes up to a minute"
    again, said = run(AHEAD, XDG_CACHE_HOME=str(tmp_path))
    assert again.splitlines() == first and said.strip() == ""


def test_what_cannot_be_compiled_ahead_is_compiled_on_import(tmp_path: Path) -> None:
    script = f"import sys; sys.executable = {str(tmp_path / 'nothing')!r}\n{AHEAD}"
    assert run(script, XDG_CACHE_HOME=str(tmp_path / "cache"))[0].splitlines()[0] == "4 0"
