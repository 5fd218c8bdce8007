"""Loops that annotate a video: this package's, and what people write with other libraries.

Each reads a clip, runs the same network on each frame, draws masks and boxes with scores, and writes a video: this
package in H.264, the others in MPEG-4 part 2, which costs less. The others do what their documentation shows: frames in
BGR, one after the other or as their own threads overlap them, masks at full size by upsampling and argmax, boxes by a
threshold and NMS. OpenCV's own DNN module is not among them: OpenCV 5.0 stops at these graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard
from perception.types import F32, U8, Prediction, SourceInfo

OURS = "perception"
FULL = "perception, fp32"
Tick = Callable[[], None]

_SCORE, _IOU = 0.5, 0.5
_OPACITY = 0.5


def ours(
    model: str,
    network: Path,
    clip: Path,
    output: Path,
    frames: int,
    tick: Tick,
    full: bool = False,
    max_loss: float | None = None,
) -> None:
    """This package: ``perception annotate``.

    Args:
        model, network, clip, output, frames, tick: as all have them.
        full: in fp32, whatever the network file of the others.
        max_loss: see `perception.run`.
    """
    from perception.drawing.annotator import Annotator
    from perception.model import load_model
    from perception.pipeline import run
    from perception.sinks import open_sink
    from perception.sinks.base import Sink
    from perception.sources import open_source

    class Counter(Sink):
        """Counts what was drawn."""

        def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
            pass

        def close(self) -> None:
            pass

        def write(self, prediction: Prediction) -> None:
            tick()

    precision: Any = "int8" if not full and network.stem.endswith("-int8") else "fp32"
    with load_model(model, engine="openvino", precision=precision) as loaded:
        sinks = [open_sink(str(output), overwrite=True), Counter()]
        run(
            open_source(str(clip), max_frames=frames),
            loaded,
            annotator=Annotator(loaded.card),
            sinks=sinks,
            max_loss=max_loss,
        )


@dataclass
class _Network:
    """What the card of a network says, for those who have no use for cards."""

    size: tuple[int, int]
    logits: str | None
    boxes: str | None
    scores: str | None
    colors: U8
    box_colors: list[tuple[int, int, int]]
    names: list[str]

    @classmethod
    def of(cls, path: Path) -> _Network:
        from perception.card.files import read_card

        card = read_card(path)
        segmentation, detection = card.segmentation, card.detection
        masks = [] if segmentation is None else [c.color[::-1] for c in segmentation.classes]
        things = [] if detection is None else detection.classes
        return cls(
            (card.input.width, card.input.height),
            None if segmentation is None else segmentation.output,
            None if detection is None else detection.boxes,
            None if detection is None else detection.scores,
            np.array(masks, np.uint8),
            [(c.color[2], c.color[1], c.color[0]) for c in things],
            [c.name for c in things],
        )

    def input_of(self, frame: U8) -> U8:
        """The frame at the network's size, uint8 ``[1, h, w, 3]``; stretched, as most do."""
        return np.asarray(cv2.resize(frame, self.size), np.uint8)[None]

    def boxes_in(self, frame: U8, boxes: F32) -> F32:
        """Boxes in pixels of the frame."""
        scale = np.array([frame.shape[1] / self.size[0], frame.shape[0] / self.size[1]] * 2, np.float32)
        return np.asarray(boxes * scale, np.float32)


def _openvino(network: Path) -> Callable[[U8], dict[str, Any]]:
    """A network on OpenVINO as its tutorials run it: compiled for latency, called on one frame after the other."""
    from perception.card.files import read_card
    from perception.common.telemetry import import_openvino

    core = import_openvino().Core()
    read = core.read_model(network)
    card = read_card(network)
    read.reshape({card.input.name: [1, card.input.height, card.input.width, 3]})
    compiled = core.compile_model(read, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    names = [output.get_any_name() for output in compiled.outputs]

    def call(batch: U8) -> dict[str, Any]:
        results = compiled(batch)
        return {name: results[i] for i, name in enumerate(names)}

    return call


def plain(model: str, network: Path, clip: Path, output: Path, frames: int, tick: Tick) -> None:
    """The loop that people write: OpenCV reads, draws and writes; torch eager runs the network and upsamples."""
    import torch
    from torchvision.ops import batched_nms

    from perception.model import load_model

    known = _Network.of(network)
    with load_model(model, engine="torch", precision="fp32", mode="latency") as loaded:
        engine = loaded.engine

        def annotate(frame: U8) -> U8:
            found = engine.infer(known.input_of(frame))
            if known.logits is not None:
                logits = torch.from_numpy(found[known.logits])
                large = torch.nn.functional.interpolate(logits, frame.shape[:2], mode="bilinear")
                frame = _blended(frame, known.colors[large[0].argmax(0).numpy()])
            if known.boxes is not None and known.scores is not None:
                scores, ids = torch.from_numpy(found[known.scores][0]).max(1)
                boxes = torch.from_numpy(found[known.boxes][0])
                sure = scores > _SCORE
                boxes, scores, ids = boxes[sure], scores[sure], ids[sure]
                kept = batched_nms(boxes, scores, ids, _IOU)
                _draw(frame, known, boxes[kept].numpy(), scores[kept].numpy(), ids[kept].numpy())
            return frame

        _read_and_write(clip, output, frames, annotate, tick)


def supervision(model: str, network: Path, clip: Path, output: Path, frames: int, tick: Tick) -> None:
    """supervision's ``process_video``, which reads and writes in threads, with its annotators and OpenVINO."""
    import supervision as sv

    known = _Network.of(network)
    call = _openvino(network)
    palette = sv.ColorPalette([sv.Color(*color[::-1]) for color in known.colors.tolist()])
    things = sv.ColorPalette([sv.Color(*color[::-1]) for color in known.box_colors])
    masks = sv.MaskAnnotator(palette, _OPACITY)
    outlines, labels = sv.BoxAnnotator(things), sv.LabelAnnotator(things)

    def callback(frame: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        height, width = frame.shape[:2]
        found = call(known.input_of(frame))
        if known.logits is not None:
            large = cv2.resize(found[known.logits][0].transpose(1, 2, 0), (width, height))
            classes = large.argmax(axis=2)
            ids = np.unique(classes)
            whole = np.tile(np.array([[0, 0, width, height]], np.float32), (len(ids), 1))
            areas = sv.Detections(xyxy=whole, mask=classes[None] == ids[:, None, None], class_id=ids)
            frame = masks.annotate(frame, areas)
        if known.boxes is not None and known.scores is not None:
            every = found[known.scores][0]
            ids, scores = every.argmax(axis=1), every.max(axis=1)
            sure = scores > _SCORE
            boxes = known.boxes_in(frame, found[known.boxes][0])
            seen = sv.Detections(xyxy=boxes[sure], confidence=scores[sure], class_id=ids[sure]).with_nms(_IOU)
            said = [
                f"{known.names[k]} {score:.0%}"
                for k, score in zip(_list(seen.class_id), _list(seen.confidence), strict=True)
            ]
            frame = labels.annotate(outlines.annotate(frame, seen), seen, said)
        tick()
        return frame

    sv.process_video(str(clip), str(output), callback, max_frames=frames)


def ultralytics(model: str, network: Path, clip: Path, output: Path, frames: int, tick: Tick) -> None:
    """Ultralytics' ``predict(save=True)`` on its own OpenVINO export of an untrained model of the same cost.

    It is under the AGPL and no dependency: measured where the user has installed it.
    """
    from ultralytics import YOLO

    untrained = YOLO("yolov8n-seg.yaml")
    exported = YOLO(untrained.export(format="openvino", imgsz=[360, 480], verbose=False), task="segment")
    for index, _ in enumerate(exported.predict(str(clip), save=True, stream=True, project=str(output.parent))):
        tick()
        if index + 1 == frames:
            break


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)


def _read_and_write(clip: Path, output: Path, frames: int, annotate: Callable[[U8], U8], tick: Tick) -> None:
    reader = cv2.VideoCapture(str(clip))
    width, height = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
    writer = cv2.VideoWriter(str(output), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (width, height))
    for _ in range(frames):
        ok, frame = reader.read()
        if not ok:
            break
        writer.write(annotate(np.asarray(frame, np.uint8)))
        tick()
    writer.release()
    reader.release()


def _blended(frame: U8, colors: U8) -> U8:
    return np.asarray(cv2.addWeighted(frame, 1 - _OPACITY, colors, _OPACITY, 0), np.uint8)


def _draw(frame: U8, known: _Network, boxes: Any, scores: Any, ids: Any) -> None:
    for box, score, k in zip(known.boxes_in(frame, boxes).astype(int).tolist(), scores, ids.tolist(), strict=True):
        color = known.box_colors[k]
        cv2.rectangle(frame, box[:2], box[2:], color, 2)
        place = (box[0], max(box[1] - 4, 12))
        cv2.putText(frame, f"{known.names[k]} {score:.0%}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1)


LOOPS: dict[str, Callable[[str, Path, Path, Path, int, Tick], None]] = {
    OURS: ours,
    FULL: partial(ours, full=True),
    "perception, --every auto": partial(ours, max_loss=0.01),
    "OpenCV and torch": plain,
    "supervision, OpenVINO": supervision,
    "Ultralytics, OpenVINO": ultralytics,
}
"""By the name that a table shows; ours first."""
