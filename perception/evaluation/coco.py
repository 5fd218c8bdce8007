"""Pictures with boxes in a COCO JSON file (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.evaluation.faults import Fault, listing
from perception.evaluation.pictures import BadPicture, read_picture
from perception.types import F32, U8

LARGEST = 1e30
"""Numbers from here on are no pixels; their squares would be infinite."""

SLACK = 1.0
"""Pixels that a box may reach over its image's edge: tools count pixels from 0, from 1, or by their centres."""


_WHOLE = {
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "iscrowd"),
    "categories": ("id", "isthing"),
    "segments_info": ("id", "category_id", "iscrowd"),
}


@dataclass(frozen=True, slots=True, eq=False)
class BoxedImage:
    """One entry of ``images`` with its annotations.

    Attributes:
        id: its id in the file.
        path: where the picture is.
        width, height: size in pixels, as the file says.
        boxes: float32 ``[M, 4]`` xyxy in pixels, inside the image but for `SLACK`.
        category_ids: int64 ``[M]``, ids of the file.
        crowd: bool ``[M]``: the box is around a group, and neither has to be found nor is wrong to find.
        areas: float64 ``[M]`` in pixels, as the file says: of the mask, where there is one.
        scores: float32 ``[M]`` in 0..1: how sure the detector was that made a box; 1 for boxes made by hand.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: F32
    category_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    scores: F32


class CocoFile:
    """The images of a COCO file in its order, with their boxes; pictures are read when asked for.

    Boxes without area, or outside their image, are faults that are not fatal: they are left out, or clipped where
    they are partly inside. A wrong id is fatal, and so is a missing picture. Ids and sizes may be written as text or
    with a decimal point, and an annotation that has polygons and no box gets the box around them.

    Args:
        annotations: the JSON file. Of ``segmentation`` only polygons are looked at.
        images: folder that ``file_name`` is relative to; a file of that name directly in it will do, too. Backslashes
            separate folders, as on Windows.

    Attributes:
        path: the JSON file.
        categories: class names by category id.
        images: entries without a fatal fault.
        faults: what is wrong with the file, and pictures that are missing.
        entries: how many images the file has.

    Raises:
        SourceError: the file is missing or is no COCO file, or has no images or no categories.
    """

    def __init__(self, annotations: str | Path, images: str | Path) -> None:
        self.path, folder = Path(annotations), Path(images)
        data = load_document(self.path)
        if not folder.is_dir():
            raise SourceError("no such folder", folder)
        self.categories, self.faults = read_categories(data["categories"], self.path)
        boxes: dict[int, list[dict[str, Any]]] = {}
        for number, entry in enumerate(data["images"]):
            if is_id(entry.get("id")):
                if entry["id"] in boxes:
                    self._fault(f"images[{number}]", f"id {entry['id']} is used twice")
                boxes[entry["id"]] = []
        for number, entry in enumerate(data["annotations"]):
            what = f"annotations[{number}] (id {entry.get('id')})"
            if not is_id(entry.get("image_id")) or entry["image_id"] not in boxes:
                self._fault(what, f"unknown image_id {entry.get('image_id')!r}")
            elif not is_id(entry.get("category_id")) or entry["category_id"] not in self.categories:
                self._fault(what, f"unknown category_id {entry.get('category_id')!r}")
            else:
                boxes[entry["image_id"]].append(entry)
        self.entries = len(data["images"])
        self.images: list[BoxedImage] = []
        for number, entry in enumerate(data["images"]):
            image = self._read_image(f"images[{number}]", entry, folder, boxes)
            if image is not None:
                self.images.append(image)

    def read(self, image: BoxedImage) -> U8 | Fault:
        """Read a picture as uint8 ``[H, W, 3]`` BGR; return its fault if it has one."""
        try:
            picture = read_picture(image.path)
        except BadPicture as error:
            return Fault(str(image.path), str(error))
        height, width = picture.shape[:2]
        if (width, height) != (image.width, image.height):
            return Fault(
                str(image.path), f"the image is {width}x{height}, {self.path.name} says {image.width}x{image.height}"
            )
        return picture

    def check(self, progress: Callable[[int, int], None] | None = None) -> tuple[list[Fault], dict[str, int]]:
        """Read everything.

        Args:
            progress: called with (pictures read, all pictures).

        Returns:
            Every fault, and the number of boxes by class name.
        """
        faults = list(self.faults)
        for done, image in enumerate(self.images, 1):
            picture = self.read(image)
            if isinstance(picture, Fault):
                faults.append(picture)
            if progress is not None:
                progress(done, len(self.images))
        return faults, self.box_counts()

    def box_counts(self) -> dict[str, int]:
        """Return the number of boxes by class name, crowds not counted, in the order of the file's categories."""
        counts: Counter[str] = Counter()
        for image in self.images:
            counts.update(self.categories[i] for i in image.category_ids[~image.crowd].tolist())
        return {name: counts[name] for name in self.categories.values()}

    def _fault(self, what: str, why: str, fatal: bool = True) -> None:
        self.faults.append(Fault(f"{self.path}: {what}", why, fatal))

    def _read_image(
        self, what: str, entry: dict[str, Any], folder: Path, boxes: dict[int, list[dict[str, Any]]]
    ) -> BoxedImage | None:
        name, width, height = entry.get("file_name"), entry.get("width"), entry.get("height")
        if not is_id(entry.get("id")) or not isinstance(name, str) or not _is_size(width) or not _is_size(height):
            self._fault(what, f"needs a whole id, file_name, width and height; has {entry!r:.200}")
            return None
        assert isinstance(width, int) and isinstance(height, int)
        path = find_picture(folder, name)
        if path is None:
            self.faults.append(Fault(str(folder / name), f"missing image ({self.path.name} lists it)"))
            return None
        kept = [
            (box, a["category_id"], bool(a.get("iscrowd")), _area(a, box), _score(a))
            for a in boxes[entry["id"]]
            if (box := self._read_box(a, name, width, height)) is not None
        ]
        return BoxedImage(
            entry["id"], path, width, height,
            np.array([k[0] for k in kept], np.float32).reshape(-1, 4),
            np.array([k[1] for k in kept], np.int64),
            np.array([k[2] for k in kept], np.bool_),
            np.array([k[3] for k in kept], np.float64),
            np.array([k[4] for k in kept], np.float32),
        )  # fmt: skip

    def _read_box(self, entry: dict[str, Any], image: str, width: int, height: int) -> list[float] | None:
        """xyxy in pixels, or None for a box that cannot be used."""
        box = entry.get("bbox") or _around(entry.get("segmentation"))
        what = f"annotation {entry.get('id')} of {image}"
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
            self._fault(what, f"bbox must be 4 numbers (x, y, width, height), not {box!r:.100}; left out", fatal=False)
            return None
        x, y, w, h = box
        if w <= 0 or h <= 0:
            self._fault(what, f"box {box} has no area; left out", fatal=False)
            return None
        x1, y1 = x + w, y + h
        if x >= width or y >= height or x1 <= 0 or y1 <= 0:
            self._fault(what, f"box {box} is outside its image, {width}x{height}; left out", fatal=False)
            return None
        if x < -SLACK or y < -SLACK or x1 > width + SLACK or y1 > height + SLACK:
            self._fault(what, f"box {box} reaches outside its image, {width}x{height}; clipped", fatal=False)
            return [max(x, 0), max(y, 0), min(x1, width), min(y1, height)]
        return [x, y, x1, y1]


def read_categories(entries: list[dict[str, Any]], path: Path) -> tuple[dict[int, str], list[Fault]]:
    """Read class names by category id, and what is wrong with them.

    Raises:
        SourceError: there are none.
    """
    categories: dict[int, str] = {}
    faults = []
    for number, entry in enumerate(entries):
        key, name = entry.get("id"), entry.get("name")
        where = f"{path}: categories[{number}]"
        if not isinstance(key, int) or not is_id(key) or not isinstance(name, str) or not name:
            faults.append(Fault(where, f"needs a whole id and a name, has {key!r} and {name!r}"))
        elif key in categories:
            faults.append(Fault(where, f"id {key} is used twice"))
        else:
            categories[key] = name
    if not categories:
        reason = f": {listing(faults)}" if faults else ""
        raise SourceError(f"this file has no categories, so there are no classes{reason}", path)
    return categories, faults


def find_picture(folder: Path, name: str) -> Path | None:
    """Find the file that a COCO file calls ``name``: in ``folder``, or directly in it; None where it is not there.

    Backslashes separate folders, as on Windows.
    """
    windows = PureWindowsPath(name)
    names = (name, windows.as_posix(), windows.name)
    try:
        return next((folder / n for n in names if (folder / n).is_file()), None)
    except OSError:  # a name that is longer than names can be
        return None


def load_document(path: Path) -> dict[str, Any]:
    """Parse a COCO file: lists of objects under the three keys that matter, their whole numbers however written.

    Raises:
        SourceError: it is missing or no COCO file, or has no images.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SourceError("no such file", path) from None
    except OSError as error:
        raise SourceError(f"cannot read the annotations: {error.strerror or error}", path) from None
    except (ValueError, RecursionError) as error:  # of JSON, or of its encoding
        raise SourceError(f"not JSON: {error}", path) from None
    keys = ("images", "annotations", "categories")
    for key in keys:
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise SourceError(f"not a COCO file: it has no list of {key!r}; it needs {', '.join(keys)}", path)
        if not all(isinstance(entry, dict) for entry in data[key]):
            raise SourceError(f"not a COCO file: an entry of {key!r} is not an object", path)
    if not data["images"]:
        raise SourceError("this file has no images", path)
    for key in keys:
        for entry in data[key]:
            _read_numbers(entry, key)
            segments = entry.get("segments_info")
            for segment in segments if isinstance(segments, list) else ():
                if isinstance(segment, dict):
                    _read_numbers(segment, "segments_info")
    return dict(data)


def _read_numbers(entry: dict[str, Any], kind: str) -> None:
    entry |= {name: _whole(entry[name]) for name in _WHOLE[kind] if name in entry}


def _whole(value: Any) -> Any:
    """Convert a whole number written as text or with a decimal point; return anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,18}(\.0*)?\s*", value):
        return int(value.partition(".")[0])
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST else value


def _around(polygons: Any) -> list[float] | None:
    """Return the box (x, y, width, height) around polygons, lists of x, y, x, y, ...; None if there are none."""
    if not isinstance(polygons, list) or not polygons:
        return None
    numbers = [polygon for polygon in polygons if isinstance(polygon, list) and len(polygon) % 2 == 0]
    xs = [x for polygon in numbers for x in polygon[0::2]]
    ys = [y for polygon in numbers for y in polygon[1::2]]
    if not xs or not all(_is_number(value) for value in (*xs, *ys)):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def is_id(value: Any) -> bool:
    """Return whether ``value`` is a whole number that can be an id."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_size(value: Any) -> bool:
    return is_id(value) and value > 0


def _is_number(value: Any) -> bool:
    # the comparison, unlike isfinite(), takes whole numbers of any length
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def _area(entry: dict[str, Any], box: list[float]) -> float:
    area: Any = entry.get("area")  # the evaluator takes a negative one for a box that does not count
    return float(area) if _is_number(area) and area >= 0 else (box[2] - box[0]) * (box[3] - box[1])


def _score(entry: dict[str, Any]) -> float:
    score: Any = entry.get("score")
    return float(min(max(score, 0.0), 1.0)) if _is_number(score) else 1.0
