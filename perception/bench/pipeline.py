"""Compare the pipeline with the plain loop that it replaces, and with the sum of its own stages."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from perception.bench.plain import Upsampling, in_opencv, in_torch, plain_fps
from perception.drawing.annotator import Annotator
from perception.engines import Mode, Precision
from perception.errors import EngineError
from perception.model import Model, load_model
from perception.picture.resize import to_input
from perception.pipeline import run
from perception.postprocess.class_maps import LogitsClassMap
from perception.sinks import open_sink
from perception.sources import open_source
from perception.sources.clips import find_clip
from perception.types import F32, U8, Frame, Prediction

SIZE = (1280, 720)
FRAMES = 200
"""Frames of the clip that are used, the first ones."""
KEPT = 100
"""Consecutive frames on which the stages are measured."""
PLAIN_FRAMES = 40
ROUNDS = 3
CORES = os.cpu_count() or 1
_ON_CPU = ("openvino", "onnxruntime")
MAX_LOSS = 0.01


class Bench:
    """A model, a 720p street clip, and the measurements on them."""

    def __init__(self, model: str, engine: str, precision: Precision, device: str, clip: Path | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="perception-bench-")
        self._model_name, self._engine, self._precision, self._given = model, engine, precision, clip
        self._device = device
        self._models: dict[str, Model] = {}

    def close(self) -> None:
        for model in self._models.values():
            model.close()
        self._folder.cleanup()

    def title(self, what: str) -> str:
        info = self._source_info
        return f"{what}: {info.width}x{info.height}, {self.model().engine.description}, {CORES} cores"

    def model(self, mode: Mode = "throughput", engine: str | None = None, precision: Precision | None = None) -> Model:
        key = f"{mode}/{engine}/{precision}"
        if key not in self._models:
            self._models[key] = load_model(
                self._model_name,
                engine=engine or self._engine,
                precision=precision or self._precision,
                device=self._device if engine is None else "CPU",
                mode=mode,
            )
        return self._models[key]

    @cached_property
    def clip(self) -> Path:
        """The clip that was given, or a street clip scaled to 1280x720."""
        if self._given is not None:
            return self._given
        found = find_clip()
        path = Path(self._folder.name) / "street-720p.mp4"
        _scale(found.uri, found.options, path)
        return path

    @cached_property
    def _source_info(self) -> Any:
        with open_source(str(self.clip)) as source:
            return source.info

    def street_frame(self) -> tuple[U8, F32 | None]:
        """Return a frame of the clip, uint8 ``[H, W, 3]`` BGR, and the model's logits for it, float32 ``[C, h, w]``.

        None if the model has none.
        """
        with open_source(str(self.clip), max_frames=1) as source:
            (frame,) = source
        class_map = self.model().predict(frame).class_map
        return frame.image, class_map.logits if isinstance(class_map, LogitsClassMap) else None

    def stage_rows(self) -> list[dict[str, Any]]:
        """Measure the core-milliseconds per frame of each stage, with all cores of the machine for itself.

        With an engine on a GPU, which resizes frames, too: milliseconds of one call and frames per second besides.
        """
        costs = self._stage_costs()
        total = sum(costs.values())
        rows: list[dict[str, Any]] = [
            {"stage": name, "core_ms": round(ms, 2), "part_percent": round(100 * ms / total, 1)}
            for name, ms in costs.items()
        ]
        rows.append({"stage": "all", "core_ms": round(total, 2), "part_percent": 100.0})
        return [*rows, {"stage": "infer, on the GPU", **self._engine_alone()}] if self._on_gpu else rows

    def pipeline_rows(self) -> list[dict[str, Any]]:
        """Measure frames per second and efficiency of the pipeline, alternately with the plain loops.

        The efficiency is the part of the cores' time that the stages need; with an engine on a GPU, the part of the
        GPU's time in which it is busy: frames per second by those of the engine alone.
        """
        plain: dict[str, Upsampling] = {"plain loop, upsampling in torch": in_torch, "in OpenCV and NumPy": in_opencv}
        fps: dict[str, list[float]] = {name: [] for name in plain}
        skipped = ""
        ours, efficiency, propagated = [], [], []
        for _ in range(ROUNDS):
            most = self._engine_alone()["fps"] if self._on_gpu else 1000 * CORES / sum(self._stage_costs().values())
            ours.append(self._pipeline_fps())
            propagated.append(self._pipeline_fps(MAX_LOSS))
            efficiency.append(ours[-1] / most)
            for name, upsample in plain.items():
                try:
                    torch_model = self.model(mode="latency", engine="torch", precision="fp32")
                except EngineError as error:
                    skipped = str(error)
                    continue
                output = Path(self._folder.name) / "plain.mp4"
                fps[name].append(plain_fps(torch_model, self.clip, output, PLAIN_FRAMES, upsample))
        rows: list[dict[str, Any]] = [
            {"run": "pipeline", "fps": round(median(ours), 1), "efficiency": round(median(efficiency), 3)}
        ]
        if propagated:
            rows.append({"run": f"pipeline, --every auto --max-loss {MAX_LOSS:g}", "fps": round(median(propagated), 1)})
        for name, values in fps.items():
            if values:
                times = {"pipeline_times_faster": ours, "every_auto_times_faster": propagated}
                ratios = {title: round(median(runs) / median(values), 1) for title, runs in times.items() if runs}
                rows.append({"run": name, "fps": round(median(values), 2), **ratios})
            else:
                rows.append({"run": name, "skipped": skipped})
        return rows

    def _stage_costs(self) -> dict[str, float]:
        """Measure core-milliseconds per frame, by stage, each run alone on all cores at once."""
        model, card = self.model(), self.model().card
        (width, height), resize = model.size, card.input.resize
        with open_source(str(self.clip), max_frames=FRAMES) as source:
            info, frames = source.info, list(islice(source, KEPT))
        gpu = self._on_gpu
        inputs = [] if gpu else [to_input(frame.picture, width, height, resize)[0][None] for frame in frames]
        predictions = [model.predict(frame) for frame in frames]
        annotators = [Annotator(card) for _ in range(CORES)]
        drawn = [Prediction(p.frame, picture=annotators[0](p)) for p in predictions]

        def decode(worker: int) -> int:
            with open_source(str(self.clip), max_frames=FRAMES) as source:
                return sum(1 for _ in source)

        def resize_all(worker: int) -> int:
            return len([to_input(frame.picture, width, height, resize) for frame in frames])

        def infer(worker: int) -> int:
            return len([model.infer(frame) for frame in frames] if gpu else [model.engine.infer(i) for i in inputs])

        def draw(worker: int) -> int:
            for prediction in predictions:
                annotators[worker](prediction)
            return len(predictions)

        def encode(worker: int) -> int:
            path = Path(self._folder.name) / f"encoded-{worker}.mp4"
            with open_sink(path, overwrite=True, audio=False) as sink:
                sink.open(info, card)
                for prediction in drawn:
                    sink.write(prediction)
            return len(drawn)

        stages = {"decode": decode, "resize": resize_all, "infer": infer, "draw": draw, "encode": encode}
        return {name: _core_ms(work) for name, work in stages.items() if not (gpu and name == "resize")}

    @property
    def _on_gpu(self) -> bool:
        return self.model().engine.name == "tensorrt"

    def _engine_alone(self) -> dict[str, float]:
        """Measure the engine with frames as they come from a source, over all its streams, and nothing else to do."""
        model = self.model()
        with open_source(str(self.clip), max_frames=FRAMES) as source:
            frames = list(islice(source, KEPT))
        times: list[float] = []

        def infer(frame: Frame) -> None:
            began = time.perf_counter()
            model.infer(frame)
            times.append((time.perf_counter() - began) * 1e3)

        with ThreadPoolExecutor(model.engine.streams) as pool:
            list(pool.map(infer, frames))  # memory for frames of their size, and the clock of the GPU
            times.clear()
            started = time.perf_counter()
            list(pool.map(infer, frames))
            seconds = time.perf_counter() - started
        p50, p95, p99 = np.percentile(times, (50, 95, 99))
        fps = len(frames) / seconds
        return {"p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99), "fps": round(fps, 1)}

    def _pipeline_fps(self, max_loss: float | None = None) -> float:
        model = self.model()
        with open_source(str(self.clip), max_frames=FRAMES) as source:
            sink = open_sink(str(Path(self._folder.name) / "ours.mp4"), overwrite=True)
            return run(source, model, annotator=Annotator(model.card), sinks=[sink], max_loss=max_loss).fps


def _core_ms(work: Callable[[int], int]) -> float:
    """Measure processor time per frame, in ms, of ``work(worker) -> frames``, with one worker per core at once.

    At once, because cores that share caches, memory and a clock are slower together than one alone, and a pipeline that
    keeps all of them busy cannot do better than that.
    """
    work(0)
    with ThreadPoolExecutor(CORES) as pool:
        started = time.process_time()
        count = sum(pool.map(work, range(CORES)))
        return 1000 * (time.process_time() - started) / count


def _scale(uri: str, options: dict[str, Any], path: Path) -> None:
    """Write a clip scaled (and cropped to fill) to 1280x720."""
    with open_source(uri, **options) as source:
        info = source.info
        sink = open_sink(str(path), overwrite=True, crf=18)
        scale = max(SIZE[0] / info.width, SIZE[1] / info.height)
        sink.open(info, None)
        with sink:
            for frame in source:
                image = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
                top, left = (image.shape[0] - SIZE[1]) // 2, (image.shape[1] - SIZE[0]) // 2
                picture = np.ascontiguousarray(image[top : top + SIZE[1], left : left + SIZE[0]], np.uint8)
                sink.write(Prediction(frame, picture=picture))
