"""Check everything that runs on a GPU, in one go: ``perception gpu-check``.

Each block runs in a process of its own, within a limit of its own, so that one that crashes, hangs or ruins the GPU's
state for its process says nothing of the others. Nothing is installed, and no network is needed. Where there is no
NVIDIA GPU, blocks that can be simulated are, and say so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from perception.common import hardware
from perception.common.version import __version__

LIMIT_S, QUICK_LIMIT_S = 540.0, 120.0
"""Of all blocks together."""

Status = Literal["PASS", "FAIL", "ABSENT"]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the check.

    Attributes:
        name: a function of `perception.gpu_check.kernel_blocks` or `perception.gpu_check.engine_blocks`.
        what: for people.
        limit_s, quick_limit_s: seconds after which it has failed.
    """

    name: str
    what: str
    limit_s: float
    quick_limit_s: float


BLOCKS = (
    Block("versions", "what is here", 30, 30),
    Block("compilation", "kernels are compiled", 90, 60),
    Block("exactness", "kernels give the CPU's bytes", 120, 60),
    Block("streams", "threads, streams, pinned memory, graphs", 180, 60),
    Block("memory", "loading again and again takes no memory", 90, 45),
    Block("building", "engines are built, kept and mended", 300, 90),
    Block("parity", "TensorRT gives ONNX Runtime's masks", 300, 90),
    Block("speed", "the engine alone", 300, 60),
    Block("torch", "the same network in PyTorch", 180, 30),
    Block("throughput", "the whole pipeline", 240, 60),
    Block("loss", "a GPU that fails: the CPU goes on", 120, 60),
    Block("decoding", "NVDEC gives the CPU's pictures", 60, 45),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a block ended.

    Attributes:
        block: its name.
        what: what it checks.
        status: ``ABSENT`` where this machine lacks what it needs.
        number: what was measured, or why it did not pass.
        simulated: it ran on Numba's simulator: it says nothing of a GPU.
        seconds: how long it took.
    """

    block: str
    what: str
    status: Status
    number: str
    simulated: bool
    seconds: float


def run_blocks(names: tuple[str, ...] = (), *, quick: bool = False, limit_s: float | None = None) -> Iterator[Outcome]:
    """Run blocks one after the other, each in a process of its own.

    Args:
        names: which; all if empty.
        quick: less of each.
        limit_s: seconds for all together; `LIMIT_S` or `QUICK_LIMIT_S` if None. Blocks beyond it fail.

    Yields:
        how each ended.
    """
    end = time.monotonic() + (limit_s if limit_s is not None else QUICK_LIMIT_S if quick else LIMIT_S)
    simulated = not hardware.nvidia_gpus()[0]
    for block in BLOCKS:
        if names and block.name not in names:
            continue
        limit = min(block.quick_limit_s if quick else block.limit_s, end - time.monotonic())
        yield _run(block, quick, simulated, limit)


def _run(block: Block, quick: bool, simulated: bool, limit_s: float) -> Outcome:
    if limit_s <= 0:
        return Outcome(block.name, block.what, "FAIL", "no time was left for it", False, 0.0)
    command = [sys.executable, "-m", "perception.gpu_check", "--block", block.name, *(["--quick"] if quick else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if simulated:
        environment["NUMBA_ENABLE_CUDASIM"] = "1"
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, said = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        return Outcome(
            block.name, block.what, "FAIL", f"it took longer than {limit_s:.0f} s", simulated, time.monotonic() - began
        )
    except BaseException:  # Ctrl-C
        _end(process)
        raise
    seconds = time.monotonic() - began
    try:
        told = json.loads(out.splitlines()[-1])
        return Outcome(block.name, block.what, told["status"], told["number"], told["simulated"], seconds)
    except (IndexError, ValueError, KeyError, TypeError):
        last = said.strip().splitlines()
        why = f"its process ended with {process.returncode}{f': {last[-1][:200]}' if last else ''}"
        return Outcome(block.name, block.what, "FAIL", why, simulated, seconds)


def _end(process: subprocess.Popen[str]) -> None:
    """End a block with all that it has started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()


def passed(outcomes: list[Outcome]) -> bool:
    """True where none failed."""
    return all(outcome.status != "FAIL" for outcome in outcomes)


def as_table(outcomes: list[Outcome]) -> str:
    """Write outcomes as a table in Markdown, as docs/gpu.md has it, with what was checked and where above it."""
    gpus, driver = hardware.nvidia_gpus()
    lines = [
        f"perception {__version__}, {time.strftime('%Y-%m-%d')}, {gpus[0].name if gpus else 'no GPU'}, {driver}",
        "",
        "| block | what | | |",
        "|---|---|---|---|",
    ]
    for each in outcomes:
        status = f"{each.status}, simulated" if each.simulated and each.status == "PASS" else each.status
        lines.append(f"| {each.block} | {each.what} | {status} | {each.number.replace('|', '/')} |")
    if any(each.simulated for each in outcomes):
        lines += ["", "Simulated means: without a GPU, on Numba's simulator. It says nothing of a GPU."]
    return "\n".join(lines)


def as_data(outcomes: list[Outcome], quick: bool) -> dict[str, Any]:
    """Return outcomes, and what was checked when and where, as plain data."""
    gpus, driver = hardware.nvidia_gpus()
    return {
        "perception": __version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "gpu": gpus[0].name if gpus else None,
        "driver": driver,
        "quick": quick,
        "passed": passed(outcomes),
        "blocks": [asdict(each) for each in outcomes],
    }
