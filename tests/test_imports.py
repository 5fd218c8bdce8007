"""What importing costs: the runtime is without torch, and nothing heavy loads before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from secrets import token_hex

import pytest

import perception

HEAVY = ("torch", "torchvision", "cv2", "av", "numba", "openvino", "onnx", "onnxruntime", "pyarrow", "pydantic")


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running ``code``."""
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; sys.stderr.write(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in out.stderr.split()}


def test_import_perception_loads_nothing_heavy() -> None:
    assert not loaded_after("import perception") & {*HEAVY, "numpy", "rich", "typer"}


def test_help_loads_nothing_heavy() -> None:
    code = """
from perception.commands.main import app
for args in (["--help"], ["annotate", "--help"]):
    try:
        app(args)
    except SystemExit:
        pass
"""
    # Typer parses with pydantic.
    assert not loaded_after(code) & {*HEAVY, "numpy"} - {"pydantic"}


def run_of(*words: str) -> str:
    """Code that runs the command as the shell does."""
    return f"""
import sys
from perception.commands.main import main
sys.argv[1:] = {words!r}
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def test_the_list_of_models_loads_nothing_heavy() -> None:
    assert not loaded_after(run_of("models")) & {*HEAVY, "numpy"} - {"pydantic"}


def test_a_command_loads_no_other(tmp_path: Path) -> None:
    code = run_of("annotate", "--help") + "import sys; sys.stderr.write('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stderr.split() if name.startswith("perception.commands.")}
    assert "perception.commands.annotate" in loaded
    assert not loaded & {f"perception.commands.{name}" for name in ("live", "bench", "train", "models", "evaluate")}


def test_the_runtime_loads_what_it_needs(tmp_path: Path) -> None:
    """Never torch; and once the model was checked, nothing to check models with."""
    from tests.models import write_model

    model = write_model(tmp_path / "colors.onnx", detection=True, name=f"new-{token_hex(4)}")  # no run has seen it
    words = (
        *("annotate", "synthetic:?size=64x48&frames=3", "-m", str(model), "--overwrite", "-q", "--engine", "openvino"),
        *("-o", str(tmp_path / "o.mp4"), "--jsonl", str(tmp_path / "o.jsonl"), "--masks", str(tmp_path / "masks")),
    )
    code = f"{run_of(*words)}\nassert 'scipy.linalg' not in sys.modules"
    first, second = loaded_after(code), loaded_after(code)
    never = {"torch", "torchvision", "pandas", "pyarrow", "matplotlib", "onnxruntime", "gradio", "fastapi", "unittest"}
    assert "onnx" in first and "onnx" not in second
    assert not (first | second) & never
    assert (tmp_path / "o.mp4").is_file()


def test_kernels_of_others_still_multiply_matrices() -> None:
    pytest.importorskip("scipy")
    code = """
import sys
import numpy as np
import perception.common.jit
assert "scipy.linalg" not in sys.modules
import numba
product = numba.njit(lambda a, b: a @ b)(np.ones((2, 3)), np.ones((3, 2)))
assert np.array_equal(product, np.full((2, 2), 3.0)), product
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_public_names_all_resolve() -> None:
    for name in perception.__all__:
        assert getattr(perception, name) is not None


def test_a_loaded_model_leaves_no_kernel_to_be_compiled_while_frames_wait(tmp_path: Path) -> None:
    code = f"""
import perception
from perception.common.jit import KERNELS
with perception.load_model("street-open", mode="throughput", precision="fp32") as model:
    ready = len(KERNELS)
    with perception.open_source("synthetic:?size=64x48&frames=3") as source:
        sinks = [perception.open_sink(path) for path in ({str(tmp_path / "v.mp4")!r}, {str(tmp_path / "v.jsonl")!r})]
        perception.run(source, model, sinks=sinks, annotator=perception.Annotator(model.card))
assert ready and len(KERNELS) == ready, [k.__name__ for k in KERNELS[ready:]]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
