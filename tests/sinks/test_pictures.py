"""Folders of masks and of annotated frames."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import SinkError, UsageError
from perception.picture.conversions import to_bgr
from perception.sinks import open_sink
from perception.sinks.masks import encode_palette_png
from perception.sources import open_source
from perception.types import Planes
from tests.sinks.samples import card, class_map, info, planes, prediction

Image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 1), (48, 64), (301, 203)])
def test_palette_png_keeps_ids_and_shows_colours(tmp_path: Path, seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (11, 3), np.uint8)
    mask = rng.integers(0, 11, size, np.uint8)
    path = tmp_path / "mask.png"
    path.write_bytes(encode_palette_png(mask, palette))
    with Image.open(path) as read:
        assert read.mode == "P"
        np.testing.assert_array_equal(np.asarray(read), mask)
        np.testing.assert_array_equal(np.asarray(read.convert("RGB")), palette[mask])
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], palette[mask])


def test_palette_png_with_ids_beyond_the_palette(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 255]], np.uint8)
    (tmp_path / "mask.png").write_bytes(encode_palette_png(mask, np.array([[9, 8, 7]], np.uint8)))
    with Image.open(tmp_path / "mask.png") as read:
        np.testing.assert_array_equal(np.asarray(read), mask)


def test_masks_of_a_video_are_named_by_index(tmp_path: Path) -> None:
    masks = {index: np.full((48, 64), index % 3, np.uint8) for index in (0, 5, 10)}
    with open_sink(tmp_path / "new" / "masks", kind="masks") as sink:
        sink.open(info(every=5), card())
        for index, mask in masks.items():
            sink.write(prediction(index, class_map=class_map(mask)))
    assert sorted(p.name for p in (tmp_path / "new" / "masks").iterdir()) == ["000000.png", "000005.png", "000010.png"]
    for index, mask in masks.items():
        with Image.open(tmp_path / "new" / "masks" / f"{index:06d}.png") as read:
            np.testing.assert_array_equal(np.asarray(read), mask)
            assert read.convert("RGB").getpixel((0, 0)) == [(128, 64, 128), (70, 130, 180), (0, 0, 142)][index % 3]


def test_masks_of_images_are_named_after_them(tmp_path: Path) -> None:
    with open_sink(tmp_path / "masks", kind="masks") as sink:
        sink.open(info(kind="images"), card())
        for index, source in enumerate(["in/a.jpg", "in/b.jpg", "in/a.png"]):
            sink.write(prediction(index, source=source, class_map=class_map(np.zeros((48, 64), np.uint8))))
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["a-000002.png", "a.png", "b.png"]


def test_masks_need_a_model_that_segments(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "masks", kind="masks")
    with pytest.raises(UsageError, match="does not do segmentation"):
        sink.open(info(), card(segmentation=False))
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("as_planes", [False, True])
@pytest.mark.parametrize("format", ["png", "jpg"])
def test_annotated_frames(tmp_path: Path, format: str, as_planes: bool) -> None:
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), (64, 48))
    picture: np.ndarray | Planes = smooth
    if as_planes:
        picture = planes(np.random.default_rng(1), 64, 48)
        for plane in (picture.y, picture.u, picture.v):
            plane[:] = 120
    with open_sink(f"{tmp_path}/frames/", format=format) as sink:
        assert sink.wants_picture
        sink.open(info(), card())
        sink.write(prediction(3, picture=picture))
    read = cv2.imread(str(tmp_path / "frames" / f"000003.{format}"))
    shown = to_bgr(picture)
    np.testing.assert_allclose(read, shown, atol=0 if format == "png" else 16)


def test_a_folder_with_pictures_is_not_mixed_into(tmp_path: Path) -> None:
    (tmp_path / "000000.jpg").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"already has \.jpg files"):
        open_sink(tmp_path)
    with open_sink(tmp_path, overwrite=True) as sink:
        sink.open(info(), card())
        sink.write(prediction(0))
    assert cv2.imread(str(tmp_path / "000000.jpg")).shape == (48, 64, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.jpg", "notes.txt"]


@pytest.mark.parametrize("uri", ["", "/a.png", "/*.png", "/../*/a.png"])
def test_the_sources_own_images_are_not_written_over(tmp_path: Path, uri: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with open_source(f"{tmp_path}{uri}") as source:
        for kind in ("images", "masks"):
            sink = open_sink(tmp_path, kind=kind, overwrite=True)
            with pytest.raises(UsageError, match="source's images"):
                sink.open(source.info, card())


def test_images_of_one_stem_never_share_a_name(tmp_path: Path) -> None:
    # the name that the third one would get is already the first one's
    names = ["a-000002.jpg", "a.jpg", "a.png"]
    with open_sink(f"{tmp_path}/out/") as sink:
        sink.open(info(kind="images", uri=str(tmp_path)), card())
        for index, name in enumerate(names):
            sink.write(prediction(index, source=name))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a-000002.jpg", "a-000003.jpg", "a.jpg"]


def test_a_picture_that_cannot_be_written_leaves_no_part(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "frames", kind="images")
    sink.open(info(), card())
    shutil.rmtree(tmp_path / "frames")
    with pytest.raises(SinkError, match=r"000000\.jpg: no such folder"):
        sink.write(prediction(0))


@pytest.mark.parametrize(("option", "value"), [("quality", 0), ("quality", 101), ("format", "gif")])
def test_options_out_of_range(tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(UsageError):
        open_sink(tmp_path / "frames", kind="images", **{option: value})
