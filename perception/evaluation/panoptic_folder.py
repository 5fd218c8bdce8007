"""Panoptic segments in COCO's format: a JSON file, and a PNG for each picture whose colours are segment ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.evaluation.coco import find_picture, is_id, load_document, read_categories
from perception.evaluation.faults import Fault
from perception.evaluation.pictures import BadPicture, read_picture
from perception.postprocess.panoptic import Panoptic, Segment
from perception.types import U8


@dataclass(frozen=True, slots=True, eq=False)
class PanopticImage:
    """One annotation with its picture.

    Attributes:
        path: the picture.
        png: the picture of its segment ids.
        segments: of the file: category id and whether it is a crowd, by segment id.
    """

    path: Path
    png: Path
    segments: dict[int, tuple[int, bool]]


@dataclass(frozen=True, slots=True, eq=False)
class PanopticSample:
    """A picture and its segments.

    Attributes:
        name: of the picture's file.
        image: uint8 ``[H, W, 3]`` BGR.
        truth: its segments; pixels of none, and of categories that do not count, have 0. Class ids are those that
            the reader was given.
        crowd: segments of ``truth`` that are groups: they need not be found.
    """

    name: str
    image: U8
    truth: Panoptic
    crowd: frozenset[int]


class PanopticFolder:
    """The annotations of a panoptic COCO file in its order; pictures are read when asked for.

    Args:
        annotations: the JSON file.
        images: folder of the pictures.
        segments: folder of the PNGs; that of the JSON file's name without its suffix where None.

    Attributes:
        path: the JSON file.
        categories: class names by category id.
        things: ids of the categories whose instances are told apart.
        images: annotations without a fatal fault.
        faults: what is wrong with the file, and pictures that are missing.
        entries: how many annotations the file has.

    Raises:
        SourceError: the file or a folder is missing, or it is no COCO file, or has no categories.
    """

    def __init__(self, annotations: str | Path, images: str | Path, segments: str | Path | None = None) -> None:
        self.path = Path(annotations)
        data = load_document(self.path)
        self._images = Path(images)
        self._segments = self.path.with_suffix("") if segments is None else Path(segments)
        for folder in (self._images, self._segments):
            if not folder.is_dir():
                raise SourceError("no such folder", folder)
        self.categories, self.faults = read_categories(data["categories"], self.path)
        self.things = {entry["id"] for entry in data["categories"] if is_id(entry.get("id")) and entry.get("isthing")}
        names = {entry["id"]: entry.get("file_name") for entry in data["images"] if is_id(entry.get("id"))}
        self.entries = len(data["annotations"])
        read = [self._read_entry(number, entry, names) for number, entry in enumerate(data["annotations"])]
        self.images = [image for image in read if image is not None]

    def read(self, image: PanopticImage, classes: Mapping[int, int]) -> PanopticSample | Fault:
        """Read a picture and its segments, or what is wrong with them.

        Args:
            image: one of ``images``.
            classes: class id by category id; segments of other categories count for nothing.
        """
        try:
            picture = read_picture(image.path)
        except BadPicture as error:
            return Fault(str(image.path), str(error))
        try:
            colors = read_picture(image.png).astype(np.int32)
        except BadPicture as error:
            return Fault(str(image.png), str(error))
        if colors.shape != picture.shape:
            (h, w), (height, width) = colors.shape[:2], picture.shape[:2]
            return Fault(str(image.png), f"segments are {w}x{h}, the image {width}x{height}")
        ids = colors[..., 2] + 256 * colors[..., 1] + 65536 * colors[..., 0]
        there, numbers = np.unique(ids, return_inverse=True)
        unknown = sorted({*there.tolist()} - {0, *image.segments})
        if unknown:
            return Fault(str(image.png), f"has segments {unknown[:8]} that {self.path.name} does not list")
        return self._sample(image, picture, there, numbers.reshape(ids.shape), classes)

    def _sample(
        self,
        image: PanopticImage,
        picture: U8,
        there: NDArray[np.int32],
        numbers: NDArray[np.int64],
        classes: Mapping[int, int],
    ) -> PanopticSample:
        areas = np.bincount(numbers.ravel(), minlength=len(there)).tolist()
        table = np.zeros(len(there), np.int32)
        kept: list[Segment] = []
        crowd = []
        for number, (segment_id, area) in enumerate(zip(there.tolist(), areas, strict=True)):
            category, is_crowd = image.segments.get(segment_id, (None, False))
            class_id = None if category is None else classes.get(category)
            if class_id is None:
                continue
            table[number] = len(kept) + 1
            kept.append(Segment(len(kept) + 1, class_id, None, area, (0, 0, 0, 0)))
            if is_crowd:
                crowd.append(len(kept))
        things = frozenset(classes[category] for category in self.things if category in classes)
        return PanopticSample(image.path.name, picture, Panoptic(table[numbers], kept, things), frozenset(crowd))

    def _read_entry(self, number: int, entry: dict[str, Any], names: Mapping[Any, Any]) -> PanopticImage | None:
        what = f"{self.path}: annotations[{number}]"
        name = names.get(entry["image_id"]) if is_id(entry.get("image_id")) else None
        png, rows = entry.get("file_name"), entry.get("segments_info")
        if not isinstance(name, str):
            self.faults.append(Fault(what, f"unknown image_id {entry.get('image_id')!r}"))
            return None
        if not isinstance(png, str) or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self.faults.append(Fault(what, "needs file_name and segments_info: this is no panoptic file"))
            return None
        segments = {}
        for row in rows:
            category = row.get("category_id")
            if not is_id(row.get("id")) or not is_id(category) or category not in self.categories:
                self.faults.append(Fault(what, f"a segment needs a whole id and a known category_id, has {row!r:.200}"))
                return None
            segments[int(row["id"])] = (int(category), bool(row.get("iscrowd")))
        path = find_picture(self._images, name)
        if path is None:
            self.faults.append(Fault(str(self._images / name), f"missing image ({self.path.name} lists it)"))
            return None
        return PanopticImage(path, find_picture(self._segments, png) or self._segments / png, segments)
