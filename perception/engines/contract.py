"""The check that a graph matches its card, done once when a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perception.card import ModelCard
from perception.errors import ModelError
from perception.types import F32, U8

_NORMALISED = 2
"""Normalised boxes reach from 0 to 1, a little over at the rim."""
_LARGEST = 16
"""So many times the picture no box is."""


def trial_frames(shape: tuple[int, ...]) -> U8:
    """Frames uint8 ``[N, H, W, 3]`` to try a network on: black above, blocks of colours below."""
    count, height, width, _ = shape
    side = max(min(height, width) // 8, 1)
    blocks = np.random.default_rng(0).integers(0, 256, (count, height // side + 1, width // side + 1, 3), np.uint8)
    frames = blocks.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width]
    frames[:, : height // 2] = 0
    return np.ascontiguousarray(frames)


def check_valid(model: Any, path: str | Path) -> None:
    """Check that an ``onnx.ModelProto`` is valid ONNX: some runtimes crash on nodes whose inputs are missing.

    Raises:
        ModelError: it is not; says what is wrong.
    """
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, MemoryError) as error:  # whatever its C++ throws
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"the graph is not valid ONNX: {reason[:500]}", path) from None


def check_graph(model: Any, card: ModelCard, size: tuple[int, int], path: str | Path) -> None:
    """Check the names, types and fixed sizes that an ``onnx.ModelProto`` declares.

    Args:
        model: the parsed file.
        card: what the card says.
        size: (width, height) that the network is to run at.
        path: the file, for the message.

    Raises:
        ModelError: listing what the graph has, what the card says, and every difference.
    """
    inputs, outputs = declared(graph_inputs(model)), declared(model.graph.output)
    name, (width, height) = card.input.name, size
    faults = []
    if list(inputs) != [name]:
        faults.append(f"the only input must be {name!r}")
    else:
        dtype, shape = inputs[name]
        if dtype != "uint8":
            faults.append(f"input {name!r} must be uint8, with scaling inside the graph, and is {dtype}")
        if len(shape) != 4 or shape[3] not in (3, None):
            faults.append(f"input {name!r} must be [N, height, width, 3]")
        elif shape[1] not in (height, None) or shape[2] not in (width, None):
            faults.append(f"input {name!r} does not take frames of {width}x{height}")
    for output, rank, _ in _wanted(card):
        if output not in outputs:
            faults.append(f"there is no output {output!r}")
            continue
        dtype, shape = outputs[output]
        if dtype != "float32":
            faults.append(f"output {output!r} must be float32 and is {dtype}")
        if shape and len(shape) != rank:
            faults.append(f"output {output!r} must have {rank} dimensions")
    if faults:
        graph = f"inputs {list_tensors(inputs)}; outputs {list_tensors(outputs)}"
        raise _mismatch(faults, graph, card, size, path)


def check_outputs(
    results: Mapping[str, F32], frames: int, card: ModelCard, size: tuple[int, int], path: str | Path
) -> None:
    """Check what the network really gives, from a run with `trial_frames`.

    Args:
        results: what the engine gave.
        frames: number of frames N it was given.
        card, size, path: as in `check_graph`.

    Raises:
        ModelError: a number of channels that is not the number of classes, boxes that do not match the scores, NaN.
    """
    faults = []
    for output, rank, axes in _wanted(card):
        shape = results[output].shape
        wrong = len(shape) != rank or shape[0] != frames or any(shape[axis] != n for axis, n in axes.items())
        if wrong:
            said = ["N"] + [str(axes.get(axis, "any")) for axis in range(1, rank)]
            faults.append(f"output {output!r} is {list(shape)} for {frames} frame(s), expected [{', '.join(said)}]")
        elif np.isnan(results[output]).any():
            faults.append(f"output {output!r} has NaN for a trial picture (a bad export, or it needs precision fp32)")
    task = card.detection
    if task is not None and not faults and results[task.boxes].shape[1] != results[task.scores].shape[1]:
        faults.append(f"outputs {task.boxes!r} and {task.scores!r} must have one row per anchor each")
    if faults:
        graph = "outputs " + list_tensors({name: (str(a.dtype), tuple(a.shape)) for name, a in results.items()})
        raise _mismatch(faults, graph, card, size, path)


def doubt_boxes(results: Mapping[str, F32], card: ModelCard, size: tuple[int, int]) -> str | None:
    """Say what is wrong with boxes of which not one can be of the trial picture, and what would mend it.

    Rows without a score, or of zeros, only fill an output up, and tell nothing.

    Args:
        results, card, size: as in `check_outputs`, which has let them pass.
    """
    if card.detection is None:
        return None
    boxes, scores = results[card.detection.boxes], results[card.detection.scores]
    given = (scores > 0).any(axis=2) & np.isfinite(boxes).all(axis=2) & (boxes != 0).any(axis=2)
    x1, y1, x2, y2 = boxes[given].T
    if not len(x1):
        return None
    width, height = size
    number = "the only box" if len(x1) == 1 else f"each of {len(x1)} boxes"
    if np.abs(boxes[given]).max() <= _NORMALISED < min(size):
        return (
            f"{number} of a trial picture lies within {_NORMALISED} pixels of its corner, as if normalised to 0..1: is "
            "`coordinates: normalised` missing under adapter.detection of the card?"
        )
    outside = (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height)
    outside |= (x2 - x1 > _LARGEST * width) | (y2 - y1 > _LARGEST * height)
    thin = (x2 - x1 < 1) | (y2 - y1 < 1)
    if not (outside | thin).all():
        return None
    if 2 * np.count_nonzero(outside) >= len(x1):
        return (
            f"{number} of a trial picture lies outside of its {width}x{height} pixels or is far larger: are they in "
            "pixels, and `coordinates: normalised` is wrong under adapter.detection of the card, or is `corners`?"
        )
    return (
        f"{number} of a trial picture is less than a pixel wide or high: is `corners` right under adapter.detection of "
        "the card (xyxy, cxcywh, xywh or yxyx), or is `coordinates: normalised` missing?"
    )


def _wanted(card: ModelCard) -> list[tuple[str, int, dict[int, int]]]:
    """Yield each output that the card names: name, number of dimensions, and the size that some axes must have."""
    wanted: list[tuple[str, int, dict[int, int]]] = []
    if card.segmentation is not None:
        wanted.append((card.segmentation.output, 4, {1: len(card.segmentation.classes)}))
    if card.detection is not None:
        wanted.append((card.detection.boxes, 3, {2: 4}))
        wanted.append((card.detection.scores, 3, {2: len(card.detection.classes)}))
    if card.classification is not None:
        wanted.append((card.classification.output, 2, {1: len(card.classification.classes)}))
    return wanted


def _mismatch(faults: list[str], graph: str, card: ModelCard, size: tuple[int, int], path: str | Path) -> ModelError:
    says = [f"input {card.input.name} {size[0]}x{size[1]}"]
    if card.segmentation is not None:
        says.append(f"segmentation {card.segmentation.output} with {len(card.segmentation.classes)} classes")
    if card.detection is not None:
        task = card.detection
        says.append(f"detection {task.boxes} and {task.scores} with {len(task.classes)} classes")
    if card.classification is not None:
        says.append(f"classification {card.classification.output} with {len(card.classification.classes)} classes")
    return ModelError(
        f"the card does not fit the graph: {'; '.join(faults)}. The graph has {graph}; the card says {', '.join(says)}",
        path,
    )


def graph_inputs(model: Any) -> list[Any]:
    """Return the graph's inputs; files from before ONNX IR 4 list their weights among them."""
    weights = {w.name for w in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def declared(values: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Type and shape by name; None for a dimension that is free."""
    import onnx

    described = {}
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
        except KeyError:
            dtype = "not a tensor"
        described[value.name] = (dtype, shape)
    return described


def list_tensors(described: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> str:
    texts = [
        f"{name} {dtype} [{', '.join('?' if n is None else str(n) for n in shape)}]"
        for name, (dtype, shape) in described.items()
    ]
    return ", ".join(texts) or "none"


def fixed_batch(model: Any, name: str) -> int:
    """Return the batch size of a graph, or 0 where any is possible."""
    for value in model.graph.input:
        if value.name == name and value.type.tensor_type.shape.dim:
            return int(value.type.tensor_type.shape.dim[0].dim_value)
    return 0
