"""How cost grows with resolution, boxes, classes, length and cameras, and what is worse than linear.

Each point is measured in a process of its own, since the peak of memory is a process's: ``python -m
perception.bench.scaling AXIS VALUE MODEL FOLDER`` prints its figures as JSON. Cameras are measured on a server, see
`perception.bench.cameras`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception.bench.peak import peak_bytes
from perception.errors import PerceptionError

CLIP_FRAMES, WARM_FRAMES = 48, 8
REPEATS = 25
LIMIT_S = 600.0
LINEAR = 1.1
"""Exponents up to this one pass for linear: machines are noisy."""

FRAME = (1280, 720)
_LOGITS = (96, 160)
_TINY = (64, 48)


def scaling_rows(model: str, clip: Path, folder: Path, seconds: float = 10.0) -> Iterator[dict[str, Any]]:
    """Measure how cost grows, axis by axis.

    Args:
        model: name or path; of the pipeline at all resolutions, and of the cameras.
        clip: what cameras show.
        folder: for files.
        seconds: how long each number of cameras is measured.

    Yields:
        rows of an axis: the value, core-milliseconds that it costs (of what, ``axis`` says), peak memory in MiB, and in
        the last one of the axis ``exponent``: cost grows with this power of the value between the two that are
        largest (1: linear), and a word on it.

    Raises:
        PerceptionError: a measurement failed.
    """
    for name, (values, _) in AXES.items():
        rows = [{"axis": name, "value": value, **measure_point(name, value, model, folder)} for value in values]
        yield from judged(rows)
    from perception.bench.cameras import growth_rows

    yield from judged(growth_rows(model, clip, (1, 2, 4, 8, 16), seconds, folder))


def draw_growth(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw cost and memory by axis, both scales logarithmic, into a PNG.

    Args:
        rows: of `scaling_rows`.
        path: of the PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(5 * len(axes) / 2, 7.5), layout="constrained")
    for name, plot in zip(axes, figure.subplots(2, -(-len(axes) // 2)).ravel(), strict=False):
        points = [row for row in rows if row["axis"] == name and row["value"]]
        for key, label in (("core_ms", "core-ms"), ("memory_mib", "MiB")):
            plot.plot([row["value"] for row in points], [row[key] for row in points], marker=".", label=label)
        plot.set(xscale="log", yscale="log", title=name)
        plot.xaxis.set_minor_formatter(NullFormatter())
        plot.grid(alpha=0.3)
        plot.legend()
    figure.savefig(path, dpi=60)


def judged(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Add to the last row of an axis with which power of the value cost grows between the last two."""
    (x0, y0), (x1, y1) = ((max(row["value"], 1), max(row["core_ms"], 1e-6)) for row in rows[-2:])
    exponent = float(np.log(y1 / y0) / np.log(x1 / x0))
    rows[-1]["exponent"] = round(exponent, 2)
    worse, less = exponent > LINEAR, exponent < 2 - LINEAR
    rows[-1]["growth"] = "worse than linear" if worse else "less than linear" if less else "linear"
    return rows


def measure_point(axis: str, value: int, model: str, folder: Path) -> dict[str, float]:
    """Measure one point in a process of its own.

    Raises:
        PerceptionError: it fails, with the last line that it said, or takes longer than `LIMIT_S`.
    """
    command = [sys.executable, "-m", __name__, axis, str(value), model, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise PerceptionError(f"not done in {LIMIT_S:.0f} s", f"{axis} {value}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise PerceptionError(said[-1][:160], f"{axis} {value}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _pipeline(pixels: int, model: str, folder: Path) -> float:
    """Core-milliseconds a frame from a video to an annotated one, of frames of 16:9."""
    from perception.drawing.annotator import Annotator
    from perception.model import load_model
    from perception.pipeline import run
    from perception.sinks import open_sink
    from perception.sources import open_source
    from perception.types import Prediction

    height = round((pixels * 9 / 16) ** 0.5)
    clip, width = folder / f"{height}.mp4", height * 16 // 9
    with open_source(f"synthetic:?size={width}x{height}&frames={CLIP_FRAMES}") as source, open_sink(clip) as sink:
        sink.open(source.info, None)
        for frame in source:
            sink.write(Prediction(frame, picture=frame.picture))
    with load_model(model) as loaded:
        annotator = Annotator(loaded.card)
        for frames in (WARM_FRAMES, CLIP_FRAMES):
            sink = open_sink(folder / "annotated.mp4", overwrite=True)
            began = time.process_time()
            run(open_source(str(clip), max_frames=frames), loaded, annotator=annotator, sinks=[sink])
        return 1e3 * (time.process_time() - began) / CLIP_FRAMES


def _suppression(count: int, model: str, folder: Path) -> float:
    """Core-milliseconds to decode a frame's boxes: three candidates for each of so many things."""
    from perception.picture.letterbox import Letterbox
    from perception.postprocess.detection import BoxDecoder

    rng = np.random.default_rng(count)
    boxes = np.repeat(_boxes(rng, count), 3, axis=0) + rng.normal(0, 1, (3 * count, 4)).astype(np.float32)
    scores = np.zeros((3 * count, 20), np.float32)
    scores[np.arange(3 * count), np.repeat(rng.integers(0, 20, count), 3)] = rng.uniform(0.5, 1, 3 * count)
    decoder = BoxDecoder(20, max_detections=max(count, 1), vote_iou=0.75)
    letterbox = Letterbox.fit(*FRAME, *FRAME)
    return _cost(lambda: decoder(boxes, scores, letterbox))


def _drawing(count: int, model: str, folder: Path) -> float:
    """Core-milliseconds to draw so many boxes with labels."""
    from perception.drawing.annotator import Annotator
    from perception.types import Detections, Frame, Prediction

    rng = np.random.default_rng(count)
    names = [f"class {i}" for i in range(20)]
    card = _card({"detection": {"classes": names}})
    found = Detections(
        _boxes(rng, count), np.sort(rng.uniform(0.5, 1, count))[::-1].astype(np.float32),
        rng.integers(0, 20, count).astype(np.int32),
    )  # fmt: skip
    frame = Frame(rng.integers(0, 256, (FRAME[1], FRAME[0], 3), np.uint8))
    annotator = Annotator(card)
    return _cost(lambda: annotator(Prediction(frame, found)))


def _classes(count: int, model: str, folder: Path) -> float:
    """Core-milliseconds to draw masks of so many classes over a frame."""
    import cv2

    from perception.drawing.annotator import Annotator
    from perception.picture.letterbox import Letterbox
    from perception.postprocess.class_maps import LogitsClassMap
    from perception.types import Frame, Prediction

    rng = np.random.default_rng(count)
    card = _card({"segmentation": {"classes": [f"class {i}" for i in range(count)]}})
    small = rng.normal(size=(count, 6, 10)).astype(np.float32)
    logits = np.stack([cv2.resize(each, _LOGITS[::-1], interpolation=cv2.INTER_CUBIC) for each in small])
    letterbox = Letterbox.fit(*FRAME, *FRAME)
    frame = Frame(rng.integers(0, 256, (FRAME[1], FRAME[0], 3), np.uint8))
    annotator = Annotator(card)
    return _cost(lambda: annotator(Prediction(frame, None, LogitsClassMap(logits, letterbox))))


def _length(frames: int, model: str, folder: Path) -> float:
    """Core-milliseconds from first to last of so many small frames, whose results are written as JSON Lines."""
    from perception.model import load_model
    from perception.pipeline import run
    from perception.sinks import open_sink
    from perception.sources import open_source

    width, height = _TINY
    with load_model(_tiny_network(folder / "tiny.onnx"), engine="openvino", precision="fp32") as loaded:
        for count in (1, frames):
            source = open_source(f"synthetic:?size={width}x{height}&frames={count}")
            began = time.process_time()
            run(source, loaded, sinks=[open_sink(folder / "length.jsonl", overwrite=True)])
        return 1e3 * (time.process_time() - began)


AXES: dict[str, tuple[tuple[int, ...], Callable[[int, str, Path], float]]] = {
    "pixels of a frame, annotated": (
        tuple(rows * rows * 16 // 9 for rows in (360, 540, 720, 1080, 1440, 2160)),
        _pipeline,
    ),
    "boxes, suppressed": ((0, 10, 100, 1000, 5000), _suppression),
    "boxes, drawn": ((0, 10, 100, 1000, 5000), _drawing),
    "classes, masks drawn": ((2, 11, 19, 50, 150), _classes),
    "frames of a video, data": ((1, 10, 100, 1000, 10_000, 100_000), _length),
}
"""By name the values of an axis, and what measures one: ``(value, model, folder)`` to core-milliseconds."""


def _boxes(rng: np.random.Generator, count: int) -> Any:
    """float32 ``[count, 4]`` xyxy, all over a frame."""
    corner = rng.uniform((0, 0), (FRAME[0] - 80, FRAME[1] - 80), (count, 2))
    return np.hstack([corner, corner + rng.uniform(10, 80, (count, 2))]).astype(np.float32)


def _card(tasks: dict[str, Any]) -> Any:
    from perception.card import validate_card

    width, height = _TINY
    data = {"name": "scaling", "input": {"width": width, "height": height}, "licence": "none", **tasks}
    return validate_card(data, "bench scaling")


def _tiny_network(path: Path) -> Path:
    """Write a network that costs next to nothing: three classes, by which colour is strongest in each 8x8 pixels."""
    import onnx
    from onnx import TensorProto, helper

    from perception.card.files import write_card

    width, height = _TINY
    nodes = [
        helper.make_node("Cast", ["frames"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["class_logits"], kernel_shape=[8, 8], strides=[8, 8]),
    ]
    graph = helper.make_graph(
        nodes,
        "strongest_colour",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, [1, 3, height // 8, width // 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    write_card(model, _card({"segmentation": {"classes": ["blue", "green", "red"]}}))
    onnx.save(model, str(path))
    return path


def _cost(work: Callable[[], object]) -> float:
    """Median core-milliseconds of a call."""
    times = []
    for number in range(REPEATS + 3):
        began = time.process_time()
        work()
        if number >= 3:
            times.append(1e3 * (time.process_time() - began))
    return float(np.median(times))


def _main(arguments: Sequence[str]) -> None:
    axis, value, model, folder = arguments
    cost = AXES[axis][1](int(value), model, Path(folder))
    print(json.dumps({"core_ms": round(cost, 3), "memory_mib": round((peak_bytes() or 0) / 2**20, 1)}))


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except PerceptionError as error:
        raise SystemExit(str(error)) from None
