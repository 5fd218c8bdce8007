import numpy as np
import pytest
from pycocotools import mask as coco

from perception.sinks import rle


def expected(mask: np.ndarray) -> dict:
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def check(mask: np.ndarray) -> None:
    """Every class that is there is encoded as pycocotools does it, and is read back by it."""
    found = rle.encode_classes(mask)
    assert list(found) == sorted(np.unique(mask).tolist())
    for class_id, encoded in found.items():
        assert encoded == expected(mask == class_id)
        one = {**encoded, "counts": encoded["counts"].encode()}
        np.testing.assert_array_equal(coco.decode(one), mask == class_id)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.01, 0.5, 0.97])
def test_encoding_equals_pycocotools_on_noise(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((int(rng.integers(1, 60)), int(rng.integers(1, 60)))) < share
    check(mask.astype(np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (720, 1280)])
@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_one_value(shape: tuple[int, int], value: int) -> None:
    mask = np.full(shape, value, np.uint8)
    check(mask)


def test_differences_at_the_edges_of_a_group_of_five_bits() -> None:
    # Runs of 15, 16, 31, 32, 511, 512, ... make differences on both sides of each group's range, both signs.
    lengths = [1, 16, 17, 1, 15, 31, 32, 3, 511, 512, 1023, 2, 16383, 16384, 1, 40000, 5, 524288, 1]
    mask = np.repeat(np.arange(len(lengths)) % 2, lengths).astype(np.uint8)[:, None]
    check(mask)


@pytest.mark.parametrize("seed", range(3))
def test_every_class_of_a_class_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 6, (9, 12)) * 50
    mask = np.kron(blocks, np.ones((20, 15))).astype(np.uint8)
    check(mask)
