"""Outputs of every kind, and what can still be read of each: by other readers than ours where there are any."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import pyarrow.parquet as pq

FILES = {
    "mp4": "o.mp4", "mkv": "o.mkv", "webm": "o.webm", "mov": "o.mov", "jsonl": "o.jsonl", "csv": "o.csv",
    "counts": "o.counts.csv", "mot": "o.txt", "coco": "o.json", "parquet": "o.parquet", "images": "images",
    "masks": "masks", "panoptic": "panoptic",
}  # fmt: skip
"""Name of each output in its folder."""

VIDEOS = ("mp4", "mkv", "webm", "mov")
GROWING = (*VIDEOS, "jsonl", "csv", "counts", "mot", "images", "masks")
"""Outputs that can be used at any moment; the others are documents, which have their name when they are complete."""

DOCUMENTS = ("coco", "parquet", "panoptic")


def kind_of_sink(output: str) -> str:
    """The word for it in `perception.sinks.open_sink`."""
    return "video" if output in VIDEOS else output


def times_of(path: Path) -> list[float]:
    """Seconds of the frames of a video, each of which was decoded."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def indices_of(output: str, folder: Path, fps: float = 25) -> list[int]:
    """Numbers of the frames that an output holds, read whole.

    An assertion, or an error of the reader, says what is wrong.
    """
    path = folder / FILES[output]
    read: Callable[[Path], list[int]] = _READERS.get(output, lambda p: [round(t * fps) for t in times_of(p)])
    found = read(path)
    assert found == sorted(found), f"{path.name}: frames out of order"
    return found


def looks_finished(output: str, folder: Path) -> bool:
    """Whether a document has its name."""
    path = folder / FILES[output]
    return (path / "panoptic.json").exists() if output == "panoptic" else path.exists()


def _jsonl(path: Path) -> list[int]:
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n"), f"{path.name}: the last line is torn"
    return [json.loads(line)["index"] for line in text.splitlines()]


def _csv(path: Path) -> list[int]:
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n"), f"{path.name}: the last row is torn"
    rows = list(csv.reader(text.splitlines()))
    assert len({len(row) for row in rows}) <= 1, f"{path.name}: rows of different length"
    return [int(row[rows[0].index("index")]) for row in rows[1:]]


def _mot(path: Path) -> list[int]:
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n"), f"{path.name}: the last row is torn"
    rows = [line.split(",") for line in text.splitlines()]
    assert len({len(row) for row in rows}) <= 1, f"{path.name}: rows of different length"
    return [int(row[0]) - 1 for row in rows]  # MOT counts from 1


def _coco(path: Path) -> list[int]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    numbers = [image["id"] for image in data["images"]]
    assert {row["image_id"] for row in data["annotations"]} <= set(numbers), f"{path.name}: boxes of no image"
    return numbers


def _parquet(path: Path) -> list[int]:
    numbers: list[int] = pq.read_table(path).column("index").to_pylist()
    return numbers


def _pictures(path: Path) -> list[int]:
    found = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    for picture in found:
        assert cv2.imread(str(picture), cv2.IMREAD_UNCHANGED) is not None, f"{picture.name} cannot be read"
    return [int(p.stem) for p in found]


def _panoptic(path: Path) -> list[int]:
    numbers = _coco(path / "panoptic.json")
    assert _pictures(path / "panoptic") == numbers, "panoptic: pictures and JSON do not agree"
    return numbers


_READERS: dict[str, Callable[[Path], list[int]]] = {
    "jsonl": _jsonl, "csv": _csv, "counts": _csv, "mot": _mot, "coco": _coco, "parquet": _parquet,
    "images": _pictures, "masks": _pictures, "panoptic": _panoptic,
}  # fmt: skip
