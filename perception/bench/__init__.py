"""Measurements behind ``perception bench``: every speed claimed in the README is printed by it.

Machines differ and are noisy, so each figure stands next to the obvious alternative. Both are medians, measured
alternately in the same run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.common.settings import nearest
from perception.errors import UsageError
from perception.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from perception.engines import Precision

PARTS = ("kernels", "stages", "pipeline", "engines")
ON_REQUEST = (
    "peers", "encoders", "live", "cameras", "rtsp", "endurance", "publish", "batches", "scaling", "models", "tracking",
    "rules",
)  # fmt: skip
"""Parts that run only on request: most need more than the package, such as a browser, another model or data."""


def run_bench(
    parts: Sequence[str] | None = None,
    *,
    model: str = DEFAULT_MODEL,
    engine: str = "auto",
    precision: Precision = "auto",
    device: str = "CPU",
    clip: Path | None = None,
    repeats: int = 30,
    against: Sequence[str] = (),
    sequences: Path | None = None,
    trials: int = 0,
    cameras: int = 16,
    seconds: float = 30.0,
    plot: Path | None = None,
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run parts of the benchmark.

    Args:
        parts: which of ``PARTS`` and ``ON_REQUEST``; all of ``PARTS`` by default.
        model: name or path of the model.
        engine: engine to run it on; ``engines`` takes every installed one.
        precision: precision to run it in; ``engines`` takes fp32 and the preferred one of each.
        device: device of the engine; ``engines`` takes the CPU, or the first GPU with TensorRT.
        clip: a video for the stages and the pipeline; by default a street clip scaled to 1280x720.
        repeats: measurements of each kernel, each engine and each network.
        against: names or paths of networks that ``models`` compares with.
        sequences: folder of labelled sequences for ``tracking``.
        trials: settings that each tracker is calibrated with.
        cameras: how many ``cameras``, ``rtsp`` and ``endurance`` have at once.
        seconds: how long these measure all of them, ``publish`` each protocol, ``batches`` each
            way, and ``scaling`` each number of cameras.
        plot: a PNG that ``scaling`` draws.

    Yields:
        a title and rows for each part as soon as it is done.

    Raises:
        UsageError: there is no such part, or ``models`` has nothing to compare with, or ``tracking`` no sequences.
    """
    chosen = tuple(parts or PARTS)
    for part in chosen:
        if part not in PARTS + ON_REQUEST:
            if part.endswith(".onnx"):
                raise UsageError(f"{part!r} is no benchmark but a model: `model={part}`, for example with 'engines'")
            raise UsageError(f"no benchmark named {part!r}{nearest(part, PARTS + ON_REQUEST)}")

    if "models" in chosen and not against:
        raise UsageError("the part 'models' needs a model to compare with: `against=MODEL`")
    if against and "models" not in chosen:
        raise UsageError("`against=MODEL` belongs to the part 'models'")

    if plot is not None and "scaling" not in chosen:
        raise UsageError("`plot=FILE` belongs to the part 'scaling'")
    if ("tracking" in chosen) != (sequences is not None):
        raise UsageError("the part 'tracking' and its data, `sequences=DIR`, belong together")

    from perception.bench.engines import engine_rows
    from perception.bench.kernels import kernel_rows
    from perception.bench.models import model_rows
    from perception.bench.pipeline import Bench
    from perception.bench.rules import rules_rows
    from perception.bench.tracking import tracking_rows

    bench = Bench(model, engine, precision, device, clip)
    try:
        if "kernels" in chosen:
            image, logits = bench.street_frame()
            yield f"kernels, {image.shape[1]}x{image.shape[0]} street frame", kernel_rows(repeats, logits, image)
        if "stages" in chosen:
            yield bench.title("stages alone"), bench.stage_rows()
        if "pipeline" in chosen:
            yield bench.title("whole pipeline"), bench.pipeline_rows()
        if "peers" in chosen:
            from perception.bench.peers import peer_rows

            yield (
                bench.title("the same video and network with other libraries"),
                peer_rows(model, bench.clip, precision),
            )
        if "encoders" in chosen:
            from perception.bench.encoders import encoder_rows

            with tempfile.TemporaryDirectory(prefix="perception-bench-") as folder:
                yield "encoders on annotated frames", encoder_rows(bench.model(), bench.clip, Path(folder))
        if "engines" in chosen:
            yield f"engines, {model}, the network alone", engine_rows(model, repeats)
        if "rules" in chosen:
            yield "rules, 35 tracks at 6 lines and 4 zones", rules_rows(repeats)
        if sequences is not None:
            yield f"trackers, {sequences}", list(tracking_rows(sequences, trials))
        if "models" in chosen:
            yield "models, the network alone", model_rows(model, against, engine, precision, repeats, device)
        if "live" in chosen:
            from perception.bench.live_browser import live_rows

            yield from live_rows(model, bench.model("latency"), bench.clip)
        if "cameras" in chosen:
            from perception.bench.cameras import camera_rows

            with tempfile.TemporaryDirectory(prefix="perception-bench-") as folder:
                rows = camera_rows(model, bench.clip, cameras, seconds, Path(folder))
            yield f"cameras on one engine, {model}", rows
        if "rtsp" in chosen:
            from perception.bench.cameras import rtsp_rows

            with tempfile.TemporaryDirectory(prefix="perception-bench-") as folder:
                rows = rtsp_rows(model, bench.clip, cameras, seconds, Path(folder))
            yield f"cameras by RTSP on one engine, {model}", rows
        if "endurance" in chosen:
            from perception.bench.endurance import endurance_rows

            with tempfile.TemporaryDirectory(prefix="perception-bench-") as folder:
                rows = endurance_rows(model, bench.clip, cameras, seconds, Path(folder))
            yield f"cameras by RTSP for {seconds / 60:g} minutes, {model}", rows
        if "scaling" in chosen:
            from perception.bench.scaling import draw_growth, scaling_rows

            with tempfile.TemporaryDirectory(prefix="perception-bench-") as folder:
                rows = list(scaling_rows(model, bench.clip, Path(folder), seconds))
            if plot is not None:
                draw_growth(rows, plot)
            yield f"how cost grows, {model}", rows
        if "publish" in chosen:
            from perception.bench.publishing import publish_rows

            yield "published pictures, later than encoded", publish_rows(bench.clip, seconds)
        if "batches" in chosen:
            from perception.annotate import Annotation
            from perception.bench.batches import FILE_FRAMES, batch_rows

            one = Annotation(
                model=model, engine=engine, precision=precision, device=device, threads=1,
                source_options={"max_frames": FILE_FRAMES},
            )  # fmt: skip
            with tempfile.TemporaryDirectory(prefix="perception-bench-") as folder:
                rows = batch_rows(one, bench.clip, seconds, Path(folder))
            yield f"batches on all cores, {model}", rows
    finally:
        bench.close()
