"""Image files, folders and globs."""

import logging
import shutil

import cv2
import numpy as np
import pytest

from perception.errors import SourceError
from perception.sources import open_source
from tests.media import QUADRANTS, add_exif_orientation, corners, make_image, quadrants, read_stamp, stamp
from tests.noise import noise


def folder_of(path, count=12, ending=".png"):
    for i in range(count):
        make_image(path / f"img{i}{ending}", stamp(i))
    return path


def test_folder_in_natural_order(tmp_path):
    (tmp_path / "deeper").mkdir()
    make_image(tmp_path / "deeper" / "img0.png", stamp(99))
    (tmp_path / "notes.txt").write_text("no image")
    folder_of(tmp_path)
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [read_stamp(f.image) for f in frames] == list(range(12))
    assert [f.source for f in frames] == [str(tmp_path / f"img{i}.png") for i in range(12)]
    assert [f.index for f in frames] == list(range(12))
    info = source.info
    assert (info.kind, info.frame_count, info.exact_count, info.fps, info.live) == ("images", 12, True, None, False)


def test_glob(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    make_image(tmp_path / "a" / "b" / "img50.png", stamp(50))
    with open_source(str(tmp_path / "img1*.png")) as source:
        assert [read_stamp(f.image) for f in source] == [1, 10, 11]
    with open_source(str(tmp_path / "**" / "img5*.png")) as source:
        assert sorted(read_stamp(f.image) for f in source) == [5, 50]
    with pytest.raises(SourceError, match="matches nothing"):
        open_source(str(tmp_path / "*.jpg"))
    (tmp_path / "x.txt").touch()
    with pytest.raises(SourceError, match="none of them an image"):
        open_source(str(tmp_path / "*.txt"))


def test_name_with_brackets_is_a_name(tmp_path):
    path = make_image(tmp_path / "a[1]*日本.png", stamp(5))
    with open_source(path) as source:
        assert [read_stamp(f.image) for f in source] == [5]
        assert source.info.path == str(path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": 5}, [0, 5, 10]),
        ({"max_frames": 2}, [0, 1]),
        ({"start": 3, "duration": 4}, [3, 4, 5, 6]),
        ({"start": 0.5, "fps": 10}, [5, 6, 7, 8, 9, 10, 11]),
        ({"start": 0.2, "duration": 0.5, "fps": 10, "every": 2}, [2, 4, 6]),
    ],
)
def test_parts(tmp_path, options, expected):
    folder_of(tmp_path)
    with open_source(tmp_path, **options) as source:
        frames = list(source)
    assert [read_stamp(f.image) for f in frames] == expected
    assert source.info.frame_count == len(expected)
    assert [f.time for f in frames] == pytest.approx([i / options.get("fps", 1) for i in expected])
    assert [f.pts for f in frames] == ([f.index for f in frames] if "fps" in options else [None] * len(frames))


def test_part_behind_the_end(tmp_path):
    with pytest.raises(SourceError, match=r"none of its images \(12\) is after second 99"):
        open_source(folder_of(tmp_path), start=99)


def test_each_image_has_its_own_size(tmp_path):
    make_image(tmp_path / "1.png", stamp(1, (80, 48)))
    make_image(tmp_path / "2.png", stamp(2, (51, 33)))
    make_image(tmp_path / "3.png", np.zeros((1, 1, 3), np.uint8))
    with open_source(tmp_path) as source:
        assert (source.info.width, source.info.height) == (80, 48)
        assert [(f.width, f.height) for f in source] == [(80, 48), (51, 33), (1, 1)]


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("gray.png", np.full((9, 7), 100, np.uint8), (100, 100, 100)),
        ("gray16.png", np.full((9, 7), 100 * 257, np.uint16), (100, 100, 100)),
        ("color16.png", np.full((9, 7, 3), (10 * 257, 100 * 257, 200 * 257), np.uint16), (10, 100, 200)),
        ("alpha.png", np.full((9, 7, 4), (10, 100, 200, 0), np.uint8), (10, 100, 200)),
        ("color.bmp", np.full((9, 7, 3), (10, 100, 200), np.uint8), (10, 100, 200)),
        ("color.tif", np.full((9, 7, 3), (10, 100, 200), np.uint8), (10, 100, 200)),
        ("color16.tif", np.full((9, 7, 3), (10 * 257, 100 * 257, 200 * 257), np.uint16), (10, 100, 200)),
        ("color.webp", np.full((9, 7, 3), (10, 100, 200), np.uint8), (10, 100, 200)),
        ("color.jpg", np.full((9, 7, 3), (10, 100, 200), np.uint8), (10, 100, 200)),
        ("color.ppm", np.full((9, 7, 3), (10, 100, 200), np.uint8), (10, 100, 200)),
    ],
)
def test_every_depth_becomes_eight_bit_bgr(tmp_path, name, image, expected):
    with open_source(make_image(tmp_path / name, image)) as source:
        (frame,) = source
    assert frame.image.shape == (9, 7, 3)
    assert frame.image.dtype == np.uint8
    assert frame.image.flags.c_contiguous
    assert np.abs(frame.image.astype(int) - expected).max() <= (4 if name.endswith(("jpg", "webp")) else 1)


# EXIF 2.3: what each of the eight values does to bring the stored picture upright.
EXIF = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", EXIF)
def test_exif_orientation_is_applied(tmp_path, orientation):
    stored = quadrants((64, 48))
    path = add_exif_orientation(make_image(tmp_path / "photo.jpg", stored), orientation)
    with open_source(path) as source:
        (frame,) = source
    expected = EXIF[orientation](stored)
    assert frame.image.shape == expected.shape
    assert corners(frame.image) == corners(expected)
    assert len(set(corners(frame.image))) == len(QUADRANTS)


def test_unreadable_images_are_skipped_and_counted(tmp_path, caplog):
    folder_of(tmp_path, 6)
    (tmp_path / "img0.png").write_bytes(b"")
    (tmp_path / "img3.png").write_bytes(b"not an image at all")
    (tmp_path / "img4.png").write_bytes((tmp_path / "img4.png").read_bytes()[:20])
    with caplog.at_level(logging.WARNING, "perception"), open_source(tmp_path) as source:
        frames = list(source)
    assert [(f.index, read_stamp(f.image)) for f in frames] == [(1, 1), (2, 2), (5, 5)]
    assert source.corrupt == 3
    for name in ("img0.png", "img3.png", "img4.png"):
        assert str(tmp_path / name) in caplog.text


def test_all_unreadable(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="none of its 3 images can be read"):
        open_source(tmp_path)


def test_an_image_that_goes_away_meanwhile(tmp_path):
    folder_of(tmp_path, 4)
    with open_source(tmp_path) as source:
        next(source)
        (tmp_path / "img2.png").unlink()
        assert [read_stamp(f.image) for f in source] == [1, 3]
    assert source.corrupt == 1


def test_upper_case_endings(tmp_path):
    make_image(tmp_path / "a.png", stamp(3))
    shutil.move(tmp_path / "a.png", tmp_path / "a.PNG")
    with open_source(tmp_path) as source:
        assert [read_stamp(f.image) for f in source] == [3]


def test_equals_opencv(tmp_path):
    random = np.random.default_rng(0)
    path = make_image(tmp_path / "noise.jpg", noise(50, 61, 3, seed=random))
    with open_source(path) as source:
        np.testing.assert_array_equal(next(source).image, cv2.imread(str(path)))
