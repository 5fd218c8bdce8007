"""The contract of every engine."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np

from perception.common.precision import Precision
from perception.errors import EngineError, PerceptionError
from perception.types import F32, U8, Frame

if TYPE_CHECKING:
    from perception.card import ModelCard
    from perception.picture.letterbox import Letterbox, ResizeMode

Mode = Literal["latency", "throughput"]

FrameResult = tuple[dict[str, F32], "Letterbox", dict[str, float]]
"""The result of `Engine.infer_frames` for a frame: outputs by name, how it lies in the input, milliseconds by stage."""

_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?")
_ORT_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\) ")
_HEADINGS = (
    "Exception from",
    "Check '",
    "FrontEnd API failed",
    "Model wasn't fully converted",
    "Summary:",
    "Loading input",
)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The way in which a model is to be run.

    Attributes:
        size: (width, height) of the frames that the engine will be given, in pixels.
        outputs: names of the graph's outputs.
        precision: arithmetic inside the network; inputs and outputs are uint8 and float32 always. ``auto`` is the
            fastest that the device computes natively without a visible loss; of a quantised file, what the layers
            that are not in eight bits compute in. `perception.engines.open_engine` alone takes ``int8``.
        mode: ``latency`` puts every core on one call; ``throughput`` runs as many calls at once as there are cores.
        threads: cores to use, or None for all that this process may use.
        device: ``CPU``, or another device name that the engine knows.
        card: the model's card, for engines that do more than the graph does.
        batch: most frames that `Engine.infer_frames` computes together; None for what the engine holds to be best,
            which on a CPU is one: there, what a frame costs does not depend on how many come with it.
    """

    size: tuple[int, int]
    outputs: tuple[str, ...]
    precision: Precision = "auto"
    mode: Mode = "latency"
    threads: int | None = None
    device: str = "CPU"
    card: ModelCard | None = None
    batch: int | None = None


class Engine(ABC):
    """A loaded network: frames in, arrays out.

    `infer` may be called from several threads at once; calls beyond ``streams`` wait for their turn.

    Attributes:
        name: which runtime it is, such as ``openvino``.
        path: the model file.
        precision: arithmetic that the network runs in: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        description: one line for people: runtime, version, precision, streams, device.
        streams: how many calls of `infer` run at once usefully.
        batch: how many frames `infer_frames` computes together at most. Where it is 1, frames that wait at the same
            time are best given one by one, over the streams.
        input_shape: ``(N, H, W, 3)`` of the frames; N is None where any number is taken in one call.
    """

    name: str
    path: Path
    precision: str
    description: str
    streams: int
    batch: int = 1
    input_shape: tuple[int | None, int, int, int]

    def infer(self, frames: U8) -> dict[str, F32]:
        """Run the network.

        Args:
            frames: uint8 ``[N, H, W, 3]`` BGR, of the engine's input shape. Read during the call only.

        Returns:
            Outputs by name, float32, C-contiguous. They belong to the caller: no later call writes into them. An
            engine with a GPU may give the argmax of class logits with them, finite then, under the name that
            `perception.postprocess.post_processing.labels_of` tells.

        Raises:
            EngineError: the frames have another shape or type, the engine is closed, or the runtime failed.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != self.input_shape[1:]:
            raise EngineError(
                f"the model takes frames uint8 {_shape_text(self.input_shape)}, got {frames.dtype} "
                f"{_shape_text(frames.shape)}",
                self.path,
            )
        if not len(frames) or self.input_shape[0] not in (None, len(frames)):
            raise EngineError(
                f"the model takes {self.input_shape[0] or 'one or more'} frame(s) per call, got {len(frames)}",
                self.path,
            )
        try:
            return self._run(np.ascontiguousarray(frames))
        except PerceptionError:
            raise
        except Exception as error:  # runtimes raise whatever their C++ throws
            raise EngineError(f"{self.name} failed while running the model: {brief(error)}", self.path) from error

    def infer_frames(self, frames: Sequence[Frame], resize: ResizeMode, buffer: U8) -> list[FrameResult]:
        """Fit frames into the network's input and run the network on them, up to ``batch`` in one execution.

        An engine with a GPU does both there: each frame crosses the bus once, as it came from its source.

        Args:
            frames: of any sizes, which may differ. Read during the call only.
            resize: how they are fitted into the input.
            buffer: uint8 ``[N, H, W, 3]`` of the engine's input shape, the caller's, to be written into; N is at least
                ``batch``, or that of the input shape.

        Returns:
            For each frame: outputs as of `infer`, with a batch of one in front; how it lies in the input; and the
            milliseconds of ``resize``, its own, and ``infer``, of all that were computed with it.

        Raises:
            EngineError: the engine is closed, or the runtime failed. What became of the other frames is not told.
        """
        from perception.picture.resize import to_input

        _, height, width, _ = self.input_shape
        results: list[FrameResult] = []
        step = min(self.batch, len(buffer))  # another engine may have taken over, see FallbackEngine
        for first in range(0, len(frames), step):
            together = frames[first : first + step]
            fitted = []
            for frame, row in zip(together, buffer, strict=False):
                start = time.perf_counter()
                _, letterbox = to_input(frame.picture, width, height, resize, out=row)
                fitted.append((letterbox, (time.perf_counter() - start) * 1e3))
            start = time.perf_counter()
            outputs = self.infer(buffer[: self.input_shape[0] or len(together)])
            infer_ms = (time.perf_counter() - start) * 1e3
            for i, (letterbox, resize_ms) in enumerate(fitted):
                own = {name: array[i : i + 1] for name, array in outputs.items()}
                results.append((own, letterbox, {"resize": resize_ms, "infer": infer_ms}))
        return results

    @abstractmethod
    def _run(self, frames: U8) -> dict[str, F32]:
        """`infer` after the checks: ``frames`` is C-contiguous and has the input shape."""

    @abstractmethod
    def close(self) -> None:
        """Release the network. Later calls of `infer` raise EngineError; closing twice is fine."""

    def _closed_error(self) -> EngineError:
        return EngineError("the engine has been closed", self.path)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def brief(error: BaseException) -> str:
    """Shorten a runtime's error message to one line, without source positions and headings."""
    text = _ORT_SOURCE.sub("", _ORT_PREFIX.sub("", str(error)))
    lines = [line.strip(" -") for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_HEADINGS)]
    said = " ".join(telling or [line for line in lines if line]) or type(error).__name__
    return said if len(said) <= 300 else said[:300].rsplit(" ", 1)[0] + " ..."


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("N" if n is None else str(n) for n in shape) + "]"
