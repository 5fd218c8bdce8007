"""Whole pictures are taken whatever follows them; cut ones never are."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.pictures import BadPicture, read_labels, read_picture
from tests.media import add_exif_orientation, stamp

TAILS = {
    "nothing": b"",
    "zeros": bytes(4096),
    "a video": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40,
    "a marker": b"\xff\xda\0\x08" + bytes(200),
    "another picture": cv2.imencode(".jpg", stamp(5))[1].tobytes()[:300],
    "the start of a PNG": b"\x89PNG\r\n\x1a\n",
    "text that looks like an end": b"IEND" * 3,
}
KINDS = {
    "baseline.jpg": [],
    "progressive.jpg": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts.jpg": [cv2.IMWRITE_JPEG_RST_INTERVAL, 1],
    "picture.png": [],
    "picture.webp": [],
}


def picture():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def coded(name):
    return cv2.imencode(Path(name).suffix, picture(), KINDS[name])[1].tobytes()


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", KINDS)
def test_whole_pictures_are_taken_whatever_follows(tmp_path, name, tail):
    (tmp_path / name).write_bytes(coded(name))
    expected = read_picture(tmp_path / name)
    (tmp_path / f"tail-{name}").write_bytes(coded(name) + TAILS[tail])
    np.testing.assert_array_equal(read_picture(tmp_path / f"tail-{name}"), expected)


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("name", KINDS)
def test_cut_pictures_are_refused(tmp_path, name, keep):
    data = coded(name)
    (tmp_path / name).write_bytes(data[: int(keep * len(data))])
    with pytest.raises(BadPicture):
        read_picture(tmp_path / name)


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture(tmp_path):
    data = cv2.imencode(".jpg", picture())[1].tobytes()
    small = cv2.imencode(".jpg", stamp(3))[1].tobytes()
    segment = b"\xff\xe1" + (2 + len(small)).to_bytes(2, "big") + small
    whole = data[:2] + segment + data[2:]
    path = tmp_path / "x.jpg"
    path.write_bytes(whole + b"\0" * 100)
    assert read_picture(path).shape == (60, 80, 3)
    path.write_bytes(whole[: len(segment) + 400])
    with pytest.raises(BadPicture, match="cut short"):
        read_picture(path)


def test_a_cut_picture_with_a_whole_one_behind_it_would_be_wrong(tmp_path):
    """A burst in one file: the end that counts is the first picture's own."""
    first, second = (cv2.imencode(".jpg", stamp(i, (160, 96)))[1].tobytes() for i in (1, 2))
    path = tmp_path / "burst.jpg"
    path.write_bytes(first + second)
    np.testing.assert_array_equal(read_picture(path), cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("tail", TAILS)
def test_labels_too(tmp_path, tail):
    from PIL import Image

    labels = np.random.default_rng(1).integers(0, 20, (30, 40), np.uint8)
    for mode in ("L", "P"):
        image = Image.fromarray(labels, "L")
        if mode == "P":
            image = Image.fromarray(labels, "P")
            image.putpalette(list(range(256)) * 3)
        path = tmp_path / f"{mode}.png"
        image.save(path)
        path.write_bytes(path.read_bytes() + TAILS[tail])
        np.testing.assert_array_equal(read_labels(path), labels)


def test_orientation_is_read_with_a_tail(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(cv2.imencode(".jpg", picture())[1].tobytes())
    add_exif_orientation(path, 6)
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert read_picture(path).shape == (80, 60, 3)
