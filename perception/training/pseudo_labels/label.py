"""Label PNGs from the agreement of several teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.common.files import sha256_of, write_atomic
from perception.errors import SourceError
from perception.evaluation.coco import load_document, read_categories
from perception.evaluation.faults import refuse
from perception.evaluation.pictures import BadPicture, picture_paths, read_labels, read_picture
from perception.sinks.files import make_folder, sink_errors
from perception.training.pseudo_labels.mask_teacher import SILENT, UNSURE, MaskTeacher
from perception.training.pseudo_labels.recipe import LabelsConfig, PictureSetConfig
from perception.training.pseudo_labels.record import (
    RECORD,
    LabelRecord,
    TeacherRecord,
    read_record,
    recorded_recipe,
)
from perception.types import U8

PictureBoxes = Sequence[tuple[str, tuple[float, float, float, float]]]
"""Name and xyxy in pixels of each box."""


@dataclass(frozen=True)
class LabelledSet:
    """What was made of one set.

    Attributes:
        output: folder of the PNGs.
        pictures: how many.
        known: share of their pixels that got a class, 0..1.
    """

    output: Path
    pictures: int
    known: float


def make_labels(
    config: LabelsConfig,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
    recipe: str | Path | None = None,
) -> Iterator[LabelledSet]:
    """Label the pictures of every set; labels that the same teachers have made already stay.

    Args:
        config: the recipe.
        overwrite: make all of them again.
        on_progress: called after each picture: name of the folder, pictures done, all pictures.
        recipe: the file of ``config``, for the record beside the labels.

    Yields:
        A result for each set, once it is done.

    Raises:
        ModelError: A teacher cannot be run.
        SourceError: A folder or its boxes are missing or faulty.
        SinkError: A label cannot be written.
    """
    teachers = [MaskTeacher(teacher, config.classes) for teacher in config.teachers]
    plans = [(part, _pictures(config, part), _read_boxes(config, part)) for part in config.sets]
    for part, pictures, boxes in plans:
        record = LabelRecord(
            teachers=[
                TeacherRecord(model=teacher.model.name, sha256=made.digest, licence=teacher.licence)
                for teacher, made in zip(config.teachers, teachers, strict=True)
            ],
            recipe=recorded_recipe(config),
            boxes=None if part.boxes is None else sha256_of(config.root / part.boxes),
            made_by=None if recipe is None else Path(recipe),
            pictures=len(pictures),
        )
        make_folder(part.output, str(part.output))
        before = read_record(part.output)
        fresh = overwrite or before is None or not before.makes_the_same(record)
        with sink_errors(str(part.output / RECORD)):
            write_atomic(part.output / RECORD, record.model_dump_json(indent=1).encode())
        known = pixels = 0
        for done, path in enumerate(pictures, 1):
            target = part.output / f"{path.stem}.png"
            labels = None if fresh else _made(target)
            if labels is None:
                try:
                    image = read_picture(path)
                except BadPicture as error:
                    raise SourceError(str(error), path) from None
                labels = label(config, teachers, image, None if boxes is None else boxes.get(path.stem, []))
                with sink_errors(str(target)):
                    write_atomic(target, cv2.imencode(".png", labels)[1].tobytes())
            known += int(np.count_nonzero(labels != config.ignore))
            pixels += labels.size
            if on_progress is not None:
                on_progress(str(part.images), done, len(pictures))
        yield LabelledSet(part.output, len(pictures), known / max(pixels, 1))


def label(
    config: LabelsConfig,
    teachers: Sequence[MaskTeacher],
    image: U8,
    boxes: PictureBoxes | None,
) -> U8:
    """Label one picture.

    Args:
        config: the recipe.
        teachers: in its order.
        image: uint8 ``[H, W, 3]`` BGR.
        boxes: name and xyxy in pixels of each; None where nobody drew any.

    Returns:
        uint8 ``[H, W]`` class ids of the recipe, its ``ignore`` where unknown.
    """
    labels = np.full(image.shape[:2], SILENT, np.uint8)
    for teacher in teachers:
        answer = teacher.label(image, config.views, config.mirror)
        spoken = answer != SILENT
        agree = (labels == SILENT) | (labels == answer)
        labels[spoken] = np.where(agree, answer, UNSURE)[spoken]
    labels[labels >= len(config.classes)] = config.ignore
    for name, kinds in config.inside.items():
        labels[(labels == config.classes.index(name)) & ~_covered(labels.shape, boxes, kinds, config.margin)] = (
            config.ignore
        )
    for name, kinds in config.outside.items():
        labels[(labels == config.classes.index(name)) & _covered(labels.shape, boxes, kinds, 0)] = config.ignore
    if config.min_region:
        for number in range(len(config.classes)):
            _, regions, stats, _ = cv2.connectedComponentsWithStats((labels == number).astype(np.uint8), connectivity=4)
            small = stats[:, cv2.CC_STAT_AREA] < config.min_region
            small[0] = False
            labels[small[regions]] = config.ignore
    return labels


def _covered(
    shape: tuple[int, ...], boxes: PictureBoxes | None, kinds: Sequence[str], margin: int
) -> NDArray[np.bool_]:
    """Return where the boxes of these names are, bool ``[H, W]``."""
    covered = np.zeros(shape, np.bool_)
    for kind, (x1, y1, x2, y2) in boxes or ():
        if kind in kinds:
            rows = slice(max(int(y1) - margin, 0), int(np.ceil(y2)) + margin)
            covered[rows, max(int(x1) - margin, 0) : int(np.ceil(x2)) + margin] = True
    return covered


def _pictures(config: LabelsConfig, part: PictureSetConfig) -> list[Path]:
    folder = config.root / part.images
    pictures = [path for path in picture_paths(folder) if part.takes(path.stem)]
    if not pictures:
        raise SourceError("no image of this folder was selected", folder)
    return pictures


def _read_boxes(config: LabelsConfig, part: PictureSetConfig) -> dict[str, PictureBoxes] | None:
    if part.boxes is None:
        return None
    path = config.root / part.boxes
    document = load_document(path)
    names, faults = read_categories(document["categories"], path)
    refuse(faults, len(names), path)
    stems = {image.get("id"): Path(str(image.get("file_name"))).stem for image in document["images"]}
    found: dict[str, list[tuple[str, tuple[float, float, float, float]]]] = {stem: [] for stem in stems.values()}
    for annotation in document["annotations"]:
        try:
            x, y, width, height = map(float, annotation["bbox"])
            found[stems[annotation["image_id"]]].append(
                (names[annotation["category_id"]], (x, y, x + width, y + height))
            )
        except (KeyError, TypeError, ValueError):
            raise SourceError(f"annotation {annotation.get('id')} has no box, image or category", path) from None
    return dict(found)


def _made(path: Path) -> U8 | None:
    """Return the labels that an earlier, broken off call has made."""
    try:
        return read_labels(path) if path.is_file() else None
    except BadPicture:
        return None
