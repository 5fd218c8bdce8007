"""Labels that lead Python's own readers astray: one line each, whatever they raise."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import SourceError
from perception.evaluation.coco import CocoFile
from perception.evaluation.faults import Fault
from perception.evaluation.labelled import open_labelled
from perception.evaluation.panoptic_folder import PanopticFolder
from perception.tracking.files import detections_of, track_frames
from perception.tracking.mot_text import read_mot

PNG = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.arange(2))
    return file.getvalue()


def pictures() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("car/a.png", PNG)
    return file.getvalue()


FIELDS = {"version": (6, 255), "flags": (8, 1 << 5), "encrypted": (8, 1), "method": (10, 77)}
"""Of a zip's central directory (PKWARE APPNOTE, 4.3.12): what Python refuses with an exception of its own."""


@pytest.mark.parametrize("field", sorted(FIELDS))
@pytest.mark.parametrize("suffix", ["zip", "npz"])
def test_zips_that_python_does_not_read(field: str, suffix: str, tmp_path: Path) -> None:
    data = bytearray(pictures() if suffix == "zip" else arrays())
    at, value = FIELDS[field]
    start = 0
    while (start := data.find(b"PK\1\2", start)) >= 0:
        data[start + at : start + at + 2] = struct.pack("<H", value)
        start += 4
    path = tmp_path / f"labels.{suffix}"
    path.write_bytes(data)
    try:
        read = open_labelled(path).read(0)
    except SourceError as error:
        assert "cannot be read as" in str(error)
    else:
        assert isinstance(read, Fault) and "corrupt image" in read.what


def test_an_array_that_claims_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 64, 64, 3)}"
    head += b" " * (117 - len(head)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("images", "labels"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + bytes(100))
    with pytest.raises(SourceError, match="cannot be read as an NPZ file"):
        open_labelled(path)


@pytest.mark.parametrize("text", ["", "\n\n", "1,1,10,20,30,40,0.9,1,-1,-1\n"])
def test_tracks_of_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tracks.txt"
    path.write_text(text)
    detections, classes = detections_of(read_mot(path))
    assert len(list(track_frames(detections, classes, 30.0))) == text.count("1,1,")


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "a\0.png", "sub\\" * 2000 + "a.png"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(PNG)
    image = {"id": 1, "file_name": name, "width": 8, "height": 8}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "car"}]}))
    (fault,) = CocoFile(path, tmp_path / "images").faults
    assert "missing image" in fault.what

    segments = {"image_id": 1, "file_name": name, "segments_info": [{"id": 2, "category_id": 1}]}
    image["file_name"] = "a.jpg"
    path.write_text(
        json.dumps({"images": [image], "annotations": [segments], "categories": [{"id": 1, "name": "car"}]})
    )
    folder = PanopticFolder(path, tmp_path / "images", tmp_path / "images")
    (entry,) = folder.images
    read = folder.read(entry, {1: 0})
    assert isinstance(read, Fault)
