"""Run-length coding of class maps."""

from __future__ import annotations

import numpy as np
import pytest

from perception.postprocess.runs import decode_runs, encode_runs


def decoded(code: np.ndarray) -> np.ndarray:
    """What the documentation of the code says, read the slow way."""
    data = iter(code.tolist())
    values, lengths = [], []
    for value in data:
        length = shift = 0
        while True:
            byte = next(data)
            length += (byte % 128) << shift
            shift += 7
            if byte < 128:
                break
        values.append(value)
        lengths.append(length)
    return np.repeat(np.array(values, np.uint8), lengths)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 300), (300, 1), (48, 64), (5, 0)])
@pytest.mark.parametrize("classes", [1, 2, 11, 256])
def test_round_trip(seed: int, shape: tuple[int, int], classes: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)
    code, counts = encode_runs(labels)
    assert (decoded(code) == labels.ravel()).all() and decoded(code).size == labels.size
    assert (decode_runs(code, *shape) == labels).all()
    assert (counts == np.bincount(labels.ravel(), minlength=256)).all()


@pytest.mark.parametrize("length", [1, 127, 128, 129, 16383, 16384, 2_200_000])
def test_lengths_around_the_edges_of_a_byte(length: int) -> None:
    labels = np.full((1, length), 7, np.uint8)
    code, _ = encode_runs(labels)
    assert len(code) == 1 + max(1, -(-length.bit_length() // 7))
    assert (decode_runs(code.tobytes(), 1, length) == 7).all()


def test_rows_with_padding() -> None:
    wide = np.random.default_rng(0).integers(0, 3, (9, 20)).astype(np.uint8)
    code, _ = encode_runs(wide[::2, 3:11])
    assert (decode_runs(code, 5, 8) == wide[::2, 3:11]).all()


@pytest.mark.parametrize("code", [b"", b"\x01", b"\x01\x05", b"\x01\x07", b"\x01\x00\x01\x06", b"\x01\x86", b"\1" * 9])
def test_codes_that_are_no_code(code: bytes) -> None:
    with pytest.raises(ValueError, match="not the runs"):
        decode_runs(code, 2, 3)


def test_endless_length() -> None:
    with pytest.raises(ValueError, match="not the runs"):
        decode_runs(b"\x01" + b"\xff" * 40, 2, 3)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_never_read_or_write_outside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 256, rng.integers(0, 40)).astype(np.uint8)
    try:
        labels = decode_runs(code, 8, 8)
    except ValueError:
        return
    assert labels.shape == (8, 8) and (labels.ravel() == decoded(code)).all()
