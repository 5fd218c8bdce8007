"""JPEG straight from planes: the colours are those of the way by BGR, whatever matrix and range the planes have."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import pytest

from perception.errors import PerceptionError
from perception.picture.conversions import bgr_to_yuv
from perception.picture.jpeg import encode_jpeg, to_jfif
from perception.types import Planes
from tests.media import quadrants

KINDS = [(matrix, full) for matrix in ("bt601", "bt709") for full in (False, True)]


def random_planes(image: np.ndarray, matrix: str, full: bool) -> Planes:
    """A picture as planes, by the definition: each chroma sample is the mean of its 2x2 block."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    yuv = bgr_to_yuv(padded, matrix, full).astype(float)
    u, v = (np.rint(yuv[..., i].reshape(len(yuv) // 2, 2, -1, 2).mean((1, 3))).astype(np.uint8) for i in (1, 2))
    return Planes(yuv[:height, :width, 0].astype(np.uint8), u, v, matrix, full)


def smooth(seed: int, size_wh: tuple[int, int]) -> np.ndarray:
    """Colours of all kinds that change slowly."""
    random = np.random.default_rng(seed)
    return cv2.resize(random.integers(0, 256, (5, 6, 3)).astype(np.uint8), size_wh, interpolation=cv2.INTER_LINEAR)


def decode(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(int)


@pytest.mark.parametrize(("matrix", "full"), KINDS)
@pytest.mark.parametrize("size_wh", [(320, 180), (161, 97), (2, 2), (1, 1), (1, 40), (33, 1)])
def test_colours_are_those_of_the_way_by_bgr(matrix: str, full: bool, size_wh: tuple[int, int]) -> None:
    for seed in range(3):
        planes = random_planes(smooth(seed, size_wh), matrix, full)
        straight, detour = decode(encode_jpeg(planes, 95)), decode(encode_jpeg(planes.to_bgr(), 95))
        assert straight.shape == detour.shape == (size_wh[1], size_wh[0], 3)
        few = min(size_wh) < 90  # pixels: their roundings do not cancel out
        assert np.abs(straight - detour).mean() < (4 if few else 1.5)
        assert np.abs((straight - detour).mean((0, 1))).max() < (4 if few else 0.7)  # none is tinted


@pytest.mark.parametrize(("matrix", "full"), KINDS)
def test_single_colours_are_kept(matrix: str, full: bool) -> None:
    """The corners of the cube of colours too, where a wrong range or matrix shows most."""
    for color in [*product((0, 255), repeat=3), (128, 128, 128), (30, 90, 200), (200, 60, 20)]:
        image = np.full((16, 16, 3), color, np.uint8)
        assert np.abs(decode(encode_jpeg(random_planes(image, matrix, full), 100)) - image).max() <= 4, color


RED_GREEN_GREEN_BLUE = {
    "bt601": (1.402, -0.714136, -0.344136, 1.772),
    "bt709": (1.5748, -0.468124, -0.187324, 1.8556),
}
"""What v adds to red, v and u to green, u to blue, as the standards print it."""


@pytest.mark.parametrize(("matrix", "full"), KINDS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("extreme", [False, True])
def test_planes_of_jfif_are_those_of_the_standards(matrix: str, full: bool, seed: int, extreme: bool) -> None:
    """Through RGB in floating point; also of what no camera gives, which must not wrap around."""
    random = np.random.default_rng(seed)
    values = [0, 255] if extreme else range(256)
    y, u, v = (random.choice(values, shape).astype(np.uint8) for shape in ((31, 45), (16, 23), (16, 23)))
    made = to_jfif(Planes(y, u, v, matrix, full))

    big_u, big_v = (plane.repeat(2, 0).repeat(2, 1)[:31, :45].astype(float) - 128 for plane in (u, v))
    luma = y.astype(float)
    if not full:
        luma, big_u, big_v = (luma - 16) * 255 / 219, big_u * 255 / 224, big_v * 255 / 224
    rv, gv, gu, bu = RED_GREEN_GREEN_BLUE[matrix]
    red, green, blue = luma + rv * big_v, luma + gu * big_u + gv * big_v, luma + bu * big_u
    to_luma = 0.299 * red + 0.587 * green + 0.114 * blue
    to_u, to_v = (blue - to_luma) / 1.772 + 128, (red - to_luma) / 1.402 + 128
    for plane, wanted in ((made.y, to_luma), (made.u, to_u[::2, ::2]), (made.v, to_v[::2, ::2])):
        assert np.abs(plane - np.clip(wanted, 0, 255)).max() < 0.51
        assert plane.flags.c_contiguous
    assert (made.matrix, made.full_range) == ("bt601", True)


@pytest.mark.parametrize(("matrix", "full"), KINDS)
def test_padded_rows_and_read_only_planes(matrix: str, full: bool) -> None:
    """As decoders give them."""
    plain = random_planes(quadrants((64, 48)), matrix, full)
    padded = []
    for plane in (plain.y, plain.u, plain.v):
        wide = np.full((plane.shape[0], plane.shape[1] + 7), 77, np.uint8)
        wide[:, : plane.shape[1]] = plane
        wide.setflags(write=False)
        padded.append(wide[:, : plane.shape[1]])
    assert encode_jpeg(Planes(*padded, matrix, full)) == encode_jpeg(plain)


@pytest.mark.parametrize("shape", [(1, 65_501), (65_501, 1)])
def test_what_is_too_large_for_a_jpeg(shape: tuple[int, int]) -> None:
    half = tuple((side + 1) // 2 for side in shape)
    planes = Planes(np.zeros(shape, np.uint8), np.zeros(half, np.uint8), np.zeros(half, np.uint8))
    for picture in (np.zeros((*shape, 3), np.uint8), planes):
        with pytest.raises(PerceptionError, match="too large"):
            encode_jpeg(picture)
