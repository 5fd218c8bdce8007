"""Panoptic files as COCO has them, and panoptic quality (Kirillov et al., "Panoptic Segmentation", 2019)."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.card import ClassInfo
from perception.postprocess.panoptic import Panoptic
from perception.sinks.files import PartFile, sink_errors
from perception.types import U8


class PanopticFolder:
    """Writes COCO panoptic results: a PNG for each image, whose colours are segment ids, and one JSON for all.

    Args:
        folder: for ``panoptic.json`` and the PNGs in ``panoptic/``.
        classes: of the class map.
        things: class ids that are things.
        overwrite: replace files that exist.

    Raises:
        UsageError: the JSON is there and ``overwrite`` is False.
        SinkError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, classes: Sequence[ClassInfo], things: Collection[int], overwrite: bool = False
    ) -> None:
        self.folder = folder / "panoptic"
        self.overwrite = overwrite
        self.things = set(things)
        self._json = PartFile(folder / "panoptic.json", overwrite)
        self._data: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [
                {"id": i, "name": c.name, "isthing": int(i in self.things), "color": list(c.color)}
                for i, c in enumerate(classes)
            ],
        }

    def write(self, name: str, view: Panoptic) -> None:
        """Add an image, called ``name`` (its file's stem)."""
        number = len(self._data["images"])
        height, width = view.ids.shape
        file = PartFile(self.folder / f"{name}.png", self.overwrite)
        _, data = cv2.imencode(".png", id_colors(view.ids)[..., ::-1])
        with file.open() as stream, sink_errors(str(file.path)):
            stream.write(data.tobytes())
        file.publish()
        self._data["images"].append({"id": number, "file_name": f"{name}.jpg", "width": width, "height": height})
        self._data["annotations"].append(
            {
                "image_id": number,
                "file_name": f"{name}.png",
                "segments_info": [
                    {
                        "id": s.id,
                        "category_id": s.class_id,
                        "area": s.area,
                        "bbox": [s.box[0], s.box[1], s.box[2] - s.box[0], s.box[3] - s.box[1]],
                        # a group of things that no box told apart
                        "iscrowd": int(s.score is None and s.class_id in self.things),
                    }
                    for s in view.segments
                ],
            }
        )

    def close(self) -> None:
        """Write the JSON."""
        with self._json.open() as stream, sink_errors(str(self._json.path)):
            stream.write(json.dumps(self._data).encode())
        self._json.publish()


def id_colors(ids: NDArray[np.int32]) -> U8:
    """Segment ids as COCO colours them, uint8 ``[H, W, 3]`` RGB: ``id = R + 256 G + 65536 B``."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Quality:
    """Panoptic quality of a class: ``pq = sq * rq``.

    Attributes:
        matched: segments of prediction and truth whose IoU is above 0.5.
        overlap: sum of their IoU.
        false_positives, false_negatives: segments without a match, of the prediction and of the truth.
    """

    matched: int
    overlap: float
    false_positives: int
    false_negatives: int

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched; 0 where there are none."""
        return self.overlap / self.matched if self.matched else 0.0

    @property
    def rq(self) -> float:
        """Recognition quality: F1 of the segments; NaN where there are none at all."""
        count = self.matched + 0.5 * (self.false_positives + self.false_negatives)
        return self.matched / count if count else float("nan")

    @property
    def pq(self) -> float:
        """Panoptic quality; NaN where the class has no segments at all."""
        return self.sq * self.rq


def panoptic_quality(pairs: Sequence[tuple[Panoptic, Panoptic]], classes: int) -> list[Quality]:
    """Quality of each class over all images.

    Two segments that overlap by more than half match, which at most one pair of each can. Pixels that the truth gives
    no segment count for nothing, and predicted segments that are mostly there are not held against anybody.

    Args:
        pairs: (truth, prediction) of each image.
        classes: number of classes.
    """
    matched = np.zeros(classes, np.int64)
    overlap = np.zeros(classes, np.float64)
    extra, missed = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for truth, found in pairs:
        count = len(found.segments) + 1
        joint = np.bincount(
            (truth.ids.astype(np.int64) * count + found.ids).ravel(), minlength=(len(truth.segments) + 1) * count
        ).reshape(len(truth.segments) + 1, count)
        taken_truth, taken_found = set(), set()
        for real in truth.segments:
            for guess in found.segments:
                common = int(joint[real.id, guess.id])
                if real.class_id != guess.class_id or not common:
                    continue
                union = real.area + guess.area - common - int(joint[0, guess.id])
                if common / union > 0.5:
                    matched[real.class_id] += 1
                    overlap[real.class_id] += common / union
                    taken_truth.add(real.id)
                    taken_found.add(guess.id)
        for real in truth.segments:
            missed[real.class_id] += real.id not in taken_truth
        for guess in found.segments:
            in_void = joint[0, guess.id] > 0.5 * guess.area
            extra[guess.class_id] += guess.id not in taken_found and not in_void
    columns = (matched.tolist(), overlap.tolist(), extra.tolist(), missed.tolist())
    return [Quality(*row) for row in zip(*columns, strict=True)]
