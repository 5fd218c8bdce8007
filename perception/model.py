"""A model ready to use: card, engine and post-processing."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.card import ModelCard, read_card
from perception.common.phases import phase
from perception.common.settings import nearest
from perception.errors import UsageError
from perception.postprocess.post_processing import DetectionOptions, PostProcessing
from perception.types import F32, U8, Frame, Planes, Prediction
from perception.weights.library import DEFAULT_MODEL, find_with_card

if TYPE_CHECKING:
    from perception.engines import Engine, Mode, Precision
    from perception.picture.letterbox import Letterbox


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    *,
    card: str | Path | None = None,
    engine: str = "auto",
    precision: Precision = "auto",
    mode: Mode = "latency",
    threads: int | None = None,
    device: str = "CPU",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    options: DetectionOptions | None = None,
    **detection: Any,
) -> Model:
    """Load a model, run its network once, and check that its results are what the card says.

    Args:
        name_or_path: a name that `list_models` knows, or the path of an ``.onnx`` file.
        card: YAML file with the card of a foreign model; it replaces the one in the file. With an ``adapter``
            section the model is rewritten first, see `perception.foreign`, and kept in the user's cache.
        engine, precision, mode, threads, device: see `perception.engines.open_engine`.
        size: (width, height) of the network's input in pixels, for models that allow more than one.
        batch: most frames that `Model.infer_batch` computes together, see `perception.engines.open_engine`.
        options: thresholds, classes and suppression.
        **detection: the fields of `DetectionOptions` by name, in place of those in ``options``:
            ``load_model("street-open", score_threshold=0.4, classes=["car"])``.

    Raises:
        ModelError: no such model, a file that is not ONNX, a card that is missing, wrong, or of another graph.
        UsageError: an option that does not fit the model.
        EngineError: the engine is not available or refuses the model.
    """
    from perception.engines import open_engine
    from perception.postprocess import warmup

    with phase("card of the model"):
        path, card = find_with_card(name_or_path, card)
        read = read_card(path, card)
    size = check_size(read, size, path)
    post = PostProcessing(read, _options(options, detection))
    warmup()  # before a source is opened: a camera's frames would wait, or be lost
    with phase("engine"):
        opened = open_engine(
            path, read, engine=engine, precision=precision, mode=mode, threads=threads, device=device, size=size,
            batch=batch,
        )  # fmt: skip
    return Model(read, opened, post)


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """A network's outputs for one frame, before post-processing.

    Attributes:
        frame: the frame it was given.
        outputs: its outputs by name, with a batch of one in front.
        letterbox: how the frame was fitted into the network's input.
        timings: milliseconds, of ``resize`` and ``infer``.
    """

    frame: Frame
    outputs: dict[str, F32]
    letterbox: Letterbox
    timings: dict[str, float]


class Model:
    """Frames in, predictions out. `predict` may be called from several threads at once.

    Attributes:
        card: everything that is known about the model.
        engine: what runs the network.
    """

    def __init__(self, card: ModelCard, engine: Engine, post_processing: PostProcessing) -> None:
        self.card = card
        self.engine = engine
        self._post_processing = post_processing
        self._buffers = threading.local()
        self._owns_engine = True

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the network's input in pixels."""
        return self.engine.input_shape[2], self.engine.input_shape[1]

    def predict(self, frame: Frame | U8) -> Prediction:
        """Predict what is in one frame.

        Args:
            frame: a frame of a source, or uint8 ``[H, W, 3]`` BGR.

        Returns:
            Detections, class map and labels as far as the model makes them, in pixels of the frame, with the
            ``timings`` of ``resize``, ``infer`` and ``postprocess``. The class map's mask is made when asked for.

        Raises:
            UsageError: an array of another shape or type.
            EngineError: the engine failed.
        """
        return self.interpret(self.infer(frame))

    def infer(self, frame: Frame | U8) -> Inference:
        """Run the first half of `predict`: resize the frame and run the network. `interpret` is the second half.

        Args, errors: as for `predict`.
        """
        return self.infer_batch([frame])[0]

    def infer_batch(self, frames: Sequence[Frame | U8]) -> list[Inference]:
        """Run `infer` on several frames at once, for engines that compute ``engine.batch`` of them together.

        Where that is 1, the calls of several threads are quicker than one call with several frames.

        Args:
            frames: as for `predict`, of any sizes.

        Returns:
            What `infer` gives, for each frame.

        Raises:
            UsageError, EngineError: as for `predict`, of any one of them; what became of the others is not told.
        """
        checked = [_as_frame(frame) for frame in frames]
        results = self.engine.infer_frames(checked, self.card.input.resize, self._buffer())
        return [Inference(frame, *result) for frame, result in zip(checked, results, strict=True)]

    def interpret(self, inference: Inference) -> Prediction:
        """Run the second half of `predict`: turn a network's outputs into a prediction, by this model's options.

        Args:
            inference: from `infer` of this model, or of another one that shares its engine (see `with_options`). It
                is only read, so that several models may interpret it.
        """
        start = time.perf_counter()
        detections, class_map, labels = self._post_processing(inference.outputs, inference.letterbox)
        timings = {**inference.timings, "postprocess": (time.perf_counter() - start) * 1e3}
        return Prediction(inference.frame, detections, class_map, labels, timings)

    def with_options(self, options: DetectionOptions) -> Model:
        """Make a light model with options of its own that runs on this one's engine. Nothing is loaded again.

        Args:
            options: what is left out of them is the card's, whatever this model was loaded with.

        Returns:
            a model that works as long as this one is open; to close it leaves the engine open.

        Raises:
            UsageError: an option is out of its range or does not fit the card.
        """
        made = Model(self.card, self.engine, PostProcessing(self.card, options))
        made._buffers = self._buffers
        made._owns_engine = False
        return made

    def warmup(self, width: int, height: int) -> None:
        """Do once, for frames of this size in pixels, all that is slower the first time: kernels, buffers, caches."""
        chroma = np.zeros(((height + 1) // 2, (width + 1) // 2), np.uint8)
        planes = Planes(np.zeros((height, width), np.uint8), chroma, chroma)
        # pictures and planes have each a kernel of their own
        for frame in (Frame(np.zeros((height, width, 3), np.uint8)), Frame(planes=planes)):
            prediction = self.predict(frame)
            if prediction.class_map is not None:
                _ = prediction.class_map.shares, prediction.class_map.mask

    def close(self) -> None:
        """Release the engine, unless it is another model's (see `with_options`); closing twice is fine."""
        if self._owns_engine:
            self.engine.close()

    def _buffer(self) -> U8:
        """Return the calling thread's network input, uint8 ``[N, H, W, 3]``: written and read within one call."""
        buffer: U8 | None = getattr(self._buffers, "frames", None)
        if buffer is None:
            frames, *shape = self.engine.input_shape
            buffer = self._buffers.frames = np.zeros((frames or self.engine.batch, *shape), np.uint8)
        return buffer

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({self.card.name!r}, {', '.join(self.card.tasks)}, {self.engine.description})"


def _options(options: DetectionOptions | None, changes: Mapping[str, Any]) -> DetectionOptions:
    known = [field.name for field in fields(DetectionOptions)]
    for name in changes:
        if name not in known:
            raise TypeError(f"load_model() has no argument {name!r}{nearest(name, known)}")
    return replace(options or DetectionOptions(), **changes)


def check_size(card: ModelCard, size: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """Return the (width, height) that a model is to run at: ``size``, or its own where None.

    Raises:
        UsageError: it does not take pictures of that size; says which it takes.
    """
    own, step = (card.input.width, card.input.height), card.input.multiple
    if size is None or tuple(size) == own:
        return own
    width, height = size
    if step is None:
        raise UsageError(f"this model takes {own[0]}x{own[1]} only, not {width}x{height}", path)
    if width < 1 or height < 1 or width % step or height % step:
        near = [max(round(side / step), 1) * step for side in (width, height)]
        raise UsageError(
            f"width and height must be multiples of {step}, not {width}x{height}; try {near[0]}x{near[1]}", path
        )
    return width, height


def _as_frame(given: Frame | U8) -> Frame:
    if isinstance(given, Frame) and given.planes is not None:
        return given
    image = given.image if isinstance(given, Frame) else given
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UsageError(f"an image must be a uint8 array [H, W, 3] in BGR order, not {got}")
    if not image.size:
        raise UsageError(f"the image is empty: {image.shape[1]}x{image.shape[0]}")
    return given if isinstance(given, Frame) else Frame(np.ascontiguousarray(image))
