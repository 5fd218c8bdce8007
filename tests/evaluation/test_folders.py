"""Reading pictures and labels, whole and broken ones."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import SourceError, UsageError
from perception.evaluation.check import check_labels
from perception.evaluation.faults import FAULTS_SHOWN, FILES_SHOWN, Fault, refuse
from perception.evaluation.folders import LabelFolder, Sample
from perception.evaluation.pictures import BadPicture, read_labels, read_picture
from perception.sinks.masks import encode_palette_png
from tests.noise import noise


def png(values: np.ndarray, depth: int, kind: int, palette: bytes = b"") -> bytes:
    """A PNG written byte by byte: the oracle for what its values are."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b""
    for row in values:
        bits = "".join(f"{int(v):0{depth}b}" for v in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    height, width = values.shape
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    colors = chunk(b"PLTE", palette) if palette else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colors + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [0, 3])
def test_labels_are_the_values_in_the_file(tmp_path: Path, depth: int, kind: int) -> None:
    rng = np.random.default_rng(depth)
    values = rng.integers(0, 2**depth, (13, 27))
    palette = rng.integers(0, 256, 3 * 2**depth, np.uint8).tobytes() if kind == 3 else b""
    path = tmp_path / "labels.png"
    path.write_bytes(png(values, depth, kind, palette))
    labels = read_labels(path)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, values)


def test_masks_that_the_package_writes_are_labels(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 11, (30, 41)).astype(np.uint8)
    path = tmp_path / "mask.png"
    path.write_bytes(encode_palette_png(mask, np.zeros((11, 3), np.uint8)))
    np.testing.assert_array_equal(read_labels(path), mask)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_file_cut_short_is_no_picture(tmp_path: Path, suffix: str) -> None:
    image = noise(60, 80, 3)
    data = cv2.imencode(suffix, image)[1].tobytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    assert read_picture(path).shape == (60, 80, 3)
    path.write_bytes(data + b"\0\0\0")  # what some cameras append
    assert read_picture(path).shape == (60, 80, 3)
    for length in (0, 10, len(data) // 2, len(data) - 40):
        path.write_bytes(data[:length])
        with pytest.raises(BadPicture, match="corrupt"):
            read_picture(path)


def test_labels_of_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for array, message in (
        (np.zeros((4, 5, 3), np.uint8), r"8-bit with one channel, not uint8 \(4, 5, 3\)"),
        (np.zeros((4, 5), np.uint16), r"8-bit with one channel, not uint16"),
    ):
        cv2.imwrite(str(path), array)
        with pytest.raises(BadPicture, match=message):
            read_labels(path)
    path.write_bytes(cv2.imencode(".jpg", np.zeros((4, 5), np.uint8))[1].tobytes())
    with pytest.raises(BadPicture, match="not a complete PNG"):
        read_labels(path)
    palette = encode_palette_png(
        np.random.default_rng(0).integers(0, 9, (50, 50)).astype(np.uint8), np.zeros((9, 3), np.uint8)
    )
    path.write_bytes(palette[:200] + b"\0" * 60 + palette[260:])
    with pytest.raises(BadPicture, match="corrupt label"):
        read_labels(path)


def write(folder: Path, name: str, image: np.ndarray, labels: np.ndarray | None) -> None:
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / name), image)
    if labels is not None:
        cv2.imwrite(str((folder / "labels" / name).with_suffix(".png")), labels)


def test_images_of_any_kind_match_labels_by_stem(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("b.jpg", "a.webp", "c.PNG", "d.jpeg"):
        write(
            tmp_path,
            name,
            noise(6, 8, 3, seed=rng),
            rng.integers(0, 3, (6, 8)).astype(np.uint8),
        )
    folder = LabelFolder(tmp_path / "images", tmp_path / "labels", 3)
    samples = [s for s in folder if isinstance(s, Sample)]
    assert [s.name for s in samples] == ["a", "b", "c", "d"]
    assert folder.faults == []
    faults, pixels = folder.check()
    assert faults == []
    assert pixels.tolist() == [sum(int((s.labels == c).sum()) for s in samples) for c in range(3)]


def test_what_the_listing_tells(tmp_path: Path) -> None:
    blank = np.zeros((6, 8, 3), np.uint8)
    write(tmp_path, "a.jpg", blank, np.zeros((6, 8), np.uint8))
    write(tmp_path, "a.webp", blank, None)
    cv2.imwrite(str(tmp_path / "labels" / "lone.png"), blank[..., 0])
    faults, pixels = LabelFolder(tmp_path / "images", tmp_path / "labels", 2).check()
    assert [(Path(f.where).name, f.fatal) for f in faults] == [("a.jpg", True), ("lone.png", False)]
    assert "a.webp" in faults[0].what
    assert pixels.tolist() == [96, 0]


def test_ignored_ids_are_known_but_not_counted(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, 11, 255, 0]], np.uint8)
    write(tmp_path, "a.png", np.zeros((1, 6, 3), np.uint8), labels)
    parts = (tmp_path / "images", tmp_path / "labels", 3)
    (fault,), _ = LabelFolder(*parts).check()
    assert "unknown class ids [11, 255]" in str(fault)
    assert "3 classes" in str(fault)
    faults, pixels = LabelFolder(*parts, ignore=[11, 255, 0]).check()
    assert faults == []
    assert pixels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("wrong", [-1, 256, 300])
def test_ids_that_no_label_can_have_are_not_ignored(tmp_path: Path, wrong: int) -> None:
    write(tmp_path, "a.png", np.zeros((1, 6, 3), np.uint8), np.zeros((1, 6), np.uint8))
    with pytest.raises(UsageError, match=rf"from 0 to 255; \[{wrong}\]"):
        check_labels(tmp_path / "images", tmp_path / "labels", ignore=[255, wrong])


def test_hidden_files_are_no_pictures_and_no_labels(tmp_path: Path) -> None:
    write(tmp_path, "a.png", np.zeros((1, 6, 3), np.uint8), np.zeros((1, 6), np.uint8))
    for folder in ("images", "labels"):
        (tmp_path / folder / "._a.png").write_bytes(b"a note of macOS")
    check = check_labels(tmp_path / "images", tmp_path / "labels")
    assert (check.images, check.faults) == (1, [])


def test_folders_that_are_not_there_or_empty(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for parts in (("nowhere", "images"), ("images", "images")):
        with pytest.raises(SourceError, match=f"{parts[0]}: no "):
            LabelFolder(tmp_path / parts[0], tmp_path / parts[1], 2)
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(SourceError, match="labels: no such folder"):
        LabelFolder(tmp_path / "images", tmp_path / "labels", 2)
    (tmp_path / "labels").mkdir()
    (fault,), _ = LabelFolder(tmp_path / "images", tmp_path / "labels", 2).check()
    assert fault.what == "missing label"


def test_many_faults_are_counted_and_some_are_told(caplog: pytest.LogCaptureFixture) -> None:
    faults = [Fault(f"{i}.png", f"unknown class ids [{i}]") for i in range(FAULTS_SHOWN + 5)]
    with pytest.raises(SourceError) as caught:
        refuse(faults, 100, "set")
    assert str(caught.value).startswith("set: 25 of 100 samples are faulty: 0.png: unknown class ids [0]; 1.png: un")
    assert str(caught.value).endswith("19.png: unknown class ids [19]; and 5 more")
    alike = [Fault(f"labels/{i}.png", "missing label") for i in range(FILES_SHOWN + 3)]
    with pytest.raises(SourceError) as caught:
        refuse([faults[0], *alike], 100, "set")
    assert "0.png: unknown class ids [0]; labels/0.png, 1.png, 2.png, " in str(caught.value)
    assert str(caught.value).endswith("9.png and 3 more: missing label")
    with caplog.at_level(logging.WARNING, "perception"):
        refuse([Fault("x", "odd", fatal=False)], 3, "set")
        refuse([], 3, "set")
    assert [r.getMessage() for r in caplog.records] == ["faulty, but not used: x: odd"]
