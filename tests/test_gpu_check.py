"""`perception gpu-check`: blocks in processes of their own, their limits, the table and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import perception.gpu_check as check
from perception.common import hardware
from perception.engines.trt.flavour import installed
from perception.gpu_check import BLOCKS, Block, Outcome, as_data, as_table, run_blocks
from tests.fixtures import Main

ROOT = Path(__file__).parent.parent
NO_GPU = pytest.mark.skipif(bool(hardware.nvidia_gpus()[0]), reason="there is a GPU: nothing is simulated")
KERNELS = pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda has no wheel for this system")

pytestmark = pytest.mark.usefixtures("own_cache_home")


@NO_GPU
@KERNELS
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_without_a_gpu_what_can_be_simulated_passes_and_says_so(
    tmp_path: Path, main_here: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the time that it takes: machines differ."""
    patient = tuple(replace(block, quick_limit_s=800) for block in BLOCKS)
    monkeypatch.setattr(check, "BLOCKS", patient)
    monkeypatch.setattr(check, "QUICK_LIMIT_S", 2000)
    done = main_here("gpu-check", "--quick", "--json-file", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads((tmp_path / "gpu.json").read_text())
    blocks = {block["block"]: block for block in data["blocks"]}
    assert [*blocks] == [block.name for block in BLOCKS]
    assert data["gpu"] is None and data["passed"] and data["quick"]
    simulated = {name for name, block in blocks.items() if block["simulated"]}
    assert simulated == {"compilation", "exactness", "streams"}
    assert {name for name, block in blocks.items() if block["status"] == "PASS"} == simulated | {"versions"} | (
        {"building"} if "rtx" in installed() else set()
    )
    assert "| exactness | kernels give the CPU's bytes | PASS, simulated | 23 of 23 equal |" in done.stdout
    assert done.stdout.rstrip().endswith("It says nothing of a GPU.")


@NO_GPU
@KERNELS
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("block", "status"),
    [("versions", "PASS"), ("exactness", "PASS"), ("throughput", "ABSENT"), ("decoding", "ABSENT")],
)
def test_it_needs_little_besides_the_package(tmp_path: Path, block: str, status: str) -> None:
    """A bare machine with a GPU has neither OpenVINO nor PyAV nor a command line."""
    lacking = [
        "av", "cv2", "openvino", "torch", "torchvision", "typer", "rich", "yaml", "gradio", "fastapi", "pyarrow", "PIL"
    ]  # fmt: skip
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        f"lacking, find_spec = {lacking!r}, importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name.partition('.')[0] in lacking else find_spec(name)\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in lacking:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Bare())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "perception.gpu_check", "--quick", "--block", block],
        env=environment, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == status, f"{told} {done.stderr}"


@pytest.fixture
def own_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that behave badly, in place of the real ones."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if '--block' in sys.orig_argv:\n"
        "    import os, time, types, subprocess\n"
        "    import perception.gpu_check as check\n"
        "    from perception.gpu_check.finding import Absent, Finding, Wrong\n"
        "    bad = types.ModuleType('perception.gpu_check.kernel_blocks')\n"
        "    def hangs(quick):\n"
        "        child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        f"        open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "        time.sleep(600)\n"
        "    bad.hangs = hangs\n"
        "    bad.random_planes = None\n"
        "    bad.dies = lambda quick: os._exit(9)\n"
        "    def aborts(quick):\n"
        "        print('said before', flush=True); sys.stderr.write('CUDA error: sticky\\n'); os.abort()\n"
        "    bad.aborts = aborts\n"
        "    def wrong(quick): raise Wrong('3 bytes | differ')\n"
        "    bad.wrong = wrong\n"
        "    def absent(quick): raise Absent('no NVIDIA GPU')\n"
        "    bad.absent = absent\n"
        "    bad.good = lambda quick: Finding('quick' if quick else 'all of it', simulated=True)\n"
        "    sys.modules['perception.gpu_check.kernel_blocks'] = bad\n"
        "    check.kernel_blocks = bad\n"
        "    check.BLOCKS = tuple(check.Block(n, n, 1, 1) for n in ('hangs','dies','aborts','wrong','absent','good'))\n"
    )
    monkeypatch.setattr(check, "BLOCKS", tuple(
        Block(name, f"it {name}", 100 if name != "hangs" else 3, 100)
        for name in ("hangs", "dies", "aborts", "wrong", "absent", "good")
    ))  # fmt: skip
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_a_block_that_crashes_says_nothing_of_the_others(own_blocks: None) -> None:
    names = ("dies", "aborts", "wrong", "absent", "good")
    outcomes = {outcome.block: outcome for outcome in run_blocks(names)}
    assert [outcomes[name].status for name in names] == ["FAIL", "FAIL", "FAIL", "ABSENT", "PASS"]
    assert "ended with 9" in outcomes["dies"].number
    assert "ended with -6: CUDA error: sticky" in outcomes["aborts"].number
    assert outcomes["wrong"].number == "Wrong: 3 bytes | differ"
    assert outcomes["good"].simulated and outcomes["good"].number == "all of it"


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_a_block_that_hangs_is_ended_with_all_that_it_has_started(
    own_blocks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Expiring(subprocess.Popen):  # type: ignore[type-arg]
        """Whose time is up as soon as the block hangs, however slow the machine is."""

        def communicate(self, input: Any = None, timeout: float | None = None) -> Any:
            if timeout is not None:
                until(lambda: (tmp_path / "child").exists() and bool((tmp_path / "child").read_text()))
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().communicate(input)

    monkeypatch.setattr(check.subprocess, "Popen", Expiring)
    outcomes = list(run_blocks(("hangs",)))
    assert [outcome.status for outcome in outcomes] == ["FAIL"]
    assert outcomes[0].number == "it took longer than 3 s"
    child = int((tmp_path / "child").read_text())
    until(lambda: not _runs(child))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 100
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_all_blocks_have_a_limit_together(own_blocks: None) -> None:
    outcomes = list(run_blocks(("good", "wrong"), quick=True, limit_s=0.0))
    assert [(o.status, o.number) for o in outcomes] == [("FAIL", "no time was left for it")] * 2
    (one,) = run_blocks(("good",), quick=True, limit_s=100.0)
    assert one.status == "PASS" and one.number == "quick"


def test_a_failure_is_the_exit_code_and_the_table_is_markdown(monkeypatch: pytest.MonkeyPatch, main_here: Main) -> None:
    outcomes = [
        Outcome("speed", "the engine alone", "PASS", "900 fps", False, 1.0),
        Outcome("parity", "the same masks", "FAIL", "98% | of pixels", False, 1.0),
    ]
    monkeypatch.setattr(check, "run_blocks", lambda quick: iter(outcomes))
    done = main_here("gpu-check")
    assert done.returncode == 1
    assert "| speed | the engine alone | PASS | 900 fps |" in done.stdout
    assert "| parity | the same masks | FAIL | 98% / of pixels |" in done.stdout
    assert "imulated" not in done.stdout
    done = main_here("gpu-check", "--json")
    assert done.returncode == 1 and not json.loads(done.stdout)["passed"]
    monkeypatch.setattr(check, "run_blocks", lambda quick: iter(outcomes[:1]))
    assert main_here("gpu-check").returncode == 0
    assert as_data(outcomes, False)["passed"] is False and "FAIL" in as_table(outcomes)


def test_every_block_is_a_function() -> None:
    from perception.gpu_check import engine_blocks, kernel_blocks, torch_block

    assert len({block.name for block in BLOCKS}) == len(BLOCKS)
    for block in BLOCKS:
        modules = [module for module in (kernel_blocks, engine_blocks, torch_block) if hasattr(module, block.name)]
        assert len(modules) == 1 and callable(getattr(modules[0], block.name)), block.name
