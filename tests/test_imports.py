"""What importing costs: the runtime is without torch, and nothing heavy loads before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_runtime_never_loads_torch(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from tests.models import write_model

    model = write_model(tmp_path / "colors.onnx", detection=True)
    code = f"""
from perception.commands.main import app
try:
    app(["annotate", "synthetic:?size=64x48&frames=3", "-m", {str(model)!r}, "-o", {str(tmp_path / "o.mp4")!r},
         "--jsonl", {str(tmp_path / "o.jsonl")!r}, "--masks", {str(tmp_path / "masks")!r}, "-q"])
except SystemExit as end:
    assert end.code == 0, end.code
"""
    assert not loaded_after(code) & {"torch", "torchvision"}
    assert (tmp_path / "o.mp4").is_file()


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
