"""A model ready to use: card, engine and post-processing."""

from __future__ import annotations

import difflib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from perception.card import ClassificationTask, DetectionTask, ModelCard, SegmentationTask, read_card
from perception.errors import UsageError
from perception.types import F32, U8, ClassMap, Detections, Frame, Planes, Prediction
from perception.weights.library import DEFAULT_MODEL, find_with_card

if TYPE_CHECKING:
    from perception.engines import Engine, Mode, Precision
    from perception.picture.letterbox import Letterbox

Suppression = Literal["nms", "soft-linear", "soft-gaussian"]

LABELS = 5
"""How many whole-image classes a prediction lists."""

_log = logging.getLogger("perception")


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
    score_threshold: float | Mapping[str, float] | None = None,
    iou_threshold: float | None = None,
    max_detections: int | None = None,
    classes: Sequence[str] | None = None,
    nms: Suppression = "nms",
    class_agnostic: bool | None = None,
) -> Model:
    """Load a model, run its network once, and check that its results are what the card says.

    Args:
        name_or_path: a name that `list_models` knows, or the path of an ``.onnx`` file.
        card: YAML file with the card of a foreign model; it replaces the one in the file. With an ``adapter``
            section the model is rewritten first, see `perception.foreign`, and kept in the user's cache.
        engine, precision, mode, threads, device: see `perception.engines.open_engine`.
        size: (width, height) of the network's input in pixels, for models that allow more than one.
        batch: most frames that `Model.infer_batch` computes together, see `perception.engines.open_engine`.
        score_threshold: least score of a detection, in 0..1: one for all classes, or by class name (the card's
            for the names left out). The card's where None.
        iou_threshold: boxes that overlap more are suppressed, in 0..1. The card's where None.
        max_detections: most boxes a frame. The card's where None.
        classes: names of the classes to keep; other boxes and labels are dropped, other segments not drawn.
        nms: greedy suppression, or soft-NMS with linear or Gaussian decay (Bodla et al., "Soft-NMS: Improving
            Object Detection With One Line of Code", ICCV 2017).
        class_agnostic: suppress boxes across classes too. The card's where None.

    Raises:
        ModelError: no such model, a file that is not ONNX, a card that is missing, wrong, or of another graph.
        UsageError: an option that does not fit the model.
        EngineError: the engine is not available or refuses the model.
    """
    from perception.engines import open_engine
    from perception.postprocess import warmup

    path, card = find_with_card(name_or_path, card)
    read = read_card(path, card)
    size = check_size(read, size, path)
    post = _PostProcessing(read, score_threshold, iou_threshold, max_detections, classes, nms, class_agnostic)
    warmup()  # before a source is opened: a camera's frames would wait, or be lost
    opened = open_engine(
        path, read, engine=engine, precision=precision, mode=mode, threads=threads, device=device, size=size,
        batch=batch,
    )  # fmt: skip
    return Model(read, opened, post)


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What a network said of one frame, before post-processing.

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

    def __init__(self, card: ModelCard, engine: Engine, post_processing: _PostProcessing) -> None:
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
        """What the model sees in one frame.

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
        """The first half of `predict`: resize the frame and run the network. `interpret` is the second half.

        Args, errors: as for `predict`.
        """
        return self.infer_batch([frame])[0]

    def infer_batch(self, frames: Sequence[Frame | U8]) -> list[Inference]:
        """The same for several frames at once, for engines that compute ``engine.batch`` of them together.

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
        """The second half of `predict`: what this model's options make of a network's outputs.

        Args:
            inference: from `infer` of this model, or of another one that shares its engine (see `tuned`). It is only
                read, so that several models may interpret it.
        """
        start = time.perf_counter()
        prediction = Prediction(inference.frame, timings=dict(inference.timings))
        self._post_processing.fill(prediction, inference.outputs, inference.letterbox)
        prediction.timings["postprocess"] = (time.perf_counter() - start) * 1e3
        return prediction

    def tuned(
        self,
        *,
        score_threshold: float | Mapping[str, float] | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[str] | None = None,
        nms: Suppression = "nms",
        class_agnostic: bool | None = None,
    ) -> Model:
        """A light model with options of its own that runs on this one's engine. Nothing is loaded again.

        Args:
            score_threshold, iou_threshold, max_detections, classes, nms, class_agnostic: as for `load_model`; what is
                left out is the card's, whatever this model was loaded with.

        Returns:
            a model that works as long as this one is open; to close it leaves the engine open.

        Raises:
            UsageError: an option is out of its range or does not fit the card.
        """
        post = _PostProcessing(self.card, score_threshold, iou_threshold, max_detections, classes, nms, class_agnostic)
        tuned = Model(self.card, self.engine, post)
        tuned._buffers = self._buffers
        tuned._owns_engine = False
        return tuned

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
        """Release the engine, unless it is another model's (see `tuned`); closing twice is fine."""
        if self._owns_engine:
            self.engine.close()

    def _buffer(self) -> U8:
        """The calling thread's network input, uint8 ``[N, H, W, 3]``: written and read within one call."""
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


class _PostProcessing:
    """What becomes of a network's outputs, with the options checked against the card."""

    def __init__(
        self,
        card: ModelCard,
        score_threshold: float | Mapping[str, float] | None,
        iou_threshold: float | None,
        max_detections: int | None,
        classes: Sequence[str] | None,
        nms: str,
        class_agnostic: bool | None,
    ) -> None:
        self._card = card
        if nms not in get_args(Suppression):
            raise UsageError(f"unknown suppression {nms!r}; choose one of: {', '.join(get_args(Suppression))}")
        if max_detections is not None and max_detections < 1:
            raise UsageError(f"max_detections must be at least 1, not {max_detections}")
        if iou_threshold is not None:
            _check_unit("iou_threshold", iou_threshold)
        for name in classes or ():
            _check_class(name, card)
        self._ignored: tuple[int, ...] = ()
        if card.segmentation is not None:
            shown = _kept(card.segmentation, classes)
            self._ignored = tuple(sorted({*card.segmentation.ignored, *np.flatnonzero(~shown).tolist()}))
        if card.classification is not None:
            self._labels = _kept(card.classification, classes)
        task = card.detection
        if task is None:
            if score_threshold is not None or iou_threshold is not None or max_detections is not None:
                _log.info("%s has no detection head: score, IoU and number of boxes mean nothing to it", card.name)
            return
        keep = _kept(task, classes)
        self._decode_options: dict[str, Any] = {
            "score_threshold": _score_threshold(task, score_threshold, card),
            "iou_threshold": task.iou_threshold if iou_threshold is None else iou_threshold,
            "max_detections": max_detections or task.max_detections,
            "class_agnostic": task.class_agnostic if class_agnostic is None else class_agnostic,
            "method": nms,
            "vote_iou": task.vote_iou,
            "class_filter": None if keep.all() else tuple(np.flatnonzero(keep).tolist()),
        }

    def fill(self, prediction: Prediction, outputs: dict[str, F32], letterbox: Letterbox) -> None:
        """Put into ``prediction`` what the outputs say of its frame, the first of the batch."""
        card = self._card
        if card.segmentation is not None:
            prediction.class_map = self._class_map(outputs[card.segmentation.output][0], card.segmentation, letterbox)
        if card.detection is not None:
            prediction.detections = self._decode(outputs, card.detection, letterbox)
        if card.classification is not None:
            prediction.labels = _labels(outputs[card.classification.output][0], self._labels)

    def _class_map(self, output: F32 | U8, task: SegmentationTask, letterbox: Letterbox) -> ClassMap:
        """Logits ``[C, h, w]``, or the mask ``[h, w]`` that an engine with a GPU made of them."""
        if output.dtype == np.uint8:
            labels = output.astype(np.uint8, copy=False)
            return ClassMap.from_labels(labels, len(task.classes), letterbox, self._ignored)
        return ClassMap(output.astype(np.float32, copy=False), letterbox, self._ignored)

    def _decode(self, outputs: dict[str, F32], task: DetectionTask, letterbox: Letterbox) -> Detections:
        from perception.postprocess.detection import decode

        return decode(outputs[task.boxes][0], outputs[task.scores][0], letterbox, **self._decode_options)


def check_size(card: ModelCard, size: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """The (width, height) that a model is to run at: ``size``, or its own where None.

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
        raise UsageError(f"an image must have pixels; this one is {image.shape[1]}x{image.shape[0]}")
    return given if isinstance(given, Frame) else Frame(np.ascontiguousarray(image))


def _kept(
    task: SegmentationTask | DetectionTask | ClassificationTask, classes: Sequence[str] | None
) -> NDArray[np.bool_]:
    """bool ``[C]``: the classes that are asked for."""
    return np.array([classes is None or name in classes for name in task.names])


def _score_threshold(task: DetectionTask, wanted: float | Mapping[str, float] | None, card: ModelCard) -> float | F32:
    if wanted is None:
        return task.score_threshold
    if isinstance(wanted, Mapping):
        for name, value in wanted.items():
            _check_class(name, card)
            _check_unit(f"score_threshold of {name}", value)
        return np.array([wanted.get(name, task.score_threshold) for name in task.names], np.float32)
    _check_unit("score_threshold", wanted)
    return wanted


def _check_class(name: str, card: ModelCard) -> None:
    tasks = [task for task in (card.segmentation, card.detection, card.classification) if task is not None]
    known = list(dict.fromkeys(n for task in tasks for n in task.names))
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known)}"
    raise UsageError(f"{card.name} has no class {name!r}; {hint}")


def _check_unit(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{what} must be in 0..1, not {value}")


def _labels(probabilities: F32, kept: NDArray[np.bool_]) -> list[tuple[int, float]]:
    order = [int(i) for i in np.argsort(-probabilities, kind="stable") if kept[i]]
    return [(i, float(probabilities[i])) for i in order[:LABELS]]
