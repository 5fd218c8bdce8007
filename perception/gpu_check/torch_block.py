"""The block that measures PyTorch, for comparison: on the same network, in half precision."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from perception.card import ModelCard, load_onnx, read_card
from perception.common import hardware
from perception.engines.base import EngineOptions
from perception.gpu_check.engine_blocks import CALLS, LEAST, QUICK_CALLS, WARM_CALLS, needs, street, street_frames
from perception.gpu_check.finding import Absent, Finding, Wrong
from perception.types import U8


def torch(quick: bool) -> Finding:
    """Measure the network in PyTorch, one frame a call, with frames that are on the GPU: eagerly and compiled."""
    if not hardware.nvidia_gpus()[0]:
        raise Absent("no NVIDIA GPU")
    needs("torch", "onnxruntime")
    import torch

    if not torch.cuda.is_available():
        raise Absent(f"torch {torch.__version__} has no CUDA")
    said = rates(street(), "cuda", "fp16", QUICK_CALLS if quick else CALLS, compiled=not quick)
    return Finding(f"torch {torch.__version__}, fp16: {said}")


def rates(path: Path, device: str, precision: Any, calls: int, *, compiled: bool) -> str:
    """Measure PyTorch on a device; says frames per second and the median call, which brings the classes back.

    Raises:
        Wrong: compiled, it gives other classes than eagerly.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    from perception.engines.torch import TorchEngine

    card = read_card(path)
    width, height, task = card.input.width, card.input.height, card.segmentation
    assert task is not None
    outputs = tuple(output.name for output in load_onnx(path).graph.output)
    options = EngineOptions((width, height), outputs, precision=precision, device=device, card=card)
    frames = torch.tensor(street_frames(width, height, 1)[0][None], device=device)
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder, TorchEngine(_folded(path, card, Path(folder)), options) as engine:
        eager = engine.compute  # type: ignore[attr-defined]
        networks: dict[str, Any] = {"eager": eager}
        if compiled:  # of what was traced: it is one graph, where the engine's own loop would be dozens
            networks["compiled"] = torch.compile(make_fx(lambda given: eager(given))(frames))
        first: U8 | None = None
        for name, network in networks.items():

            def call(network: Any = network) -> U8:
                classes = network(frames)[task.output][0].argmax(0)
                return np.asarray(classes.to(torch.uint8).cpu().numpy())

            classes = [call() for _ in range(WARM_CALLS)][-1]
            first = classes if first is None else first
            if np.mean(classes == first) < LEAST["fp16"]:
                raise Wrong("compiled, torch gives other classes")
            times = []
            for _ in range(calls):
                began = time.perf_counter()
                call()
                times.append(time.perf_counter() - began)
            said.append(f"{name} {calls / sum(times):.0f} fps, {1e3 * float(np.median(times)):.2f} ms")
    return "; ".join(said)


def _folded(path: Path, card: ModelCard, folder: Path) -> Path:
    """Write the graph for one frame of the card's size, without the arithmetic on shapes that is the same each time."""
    import onnxruntime

    model = load_onnx(path)
    for value in model.graph.input:
        shape = 1, card.input.height, card.input.width, 3
        for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            dimension.dim_value = size
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded = folder / path.name
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return folded
