"""Pictures of clients: the pixels that OpenCV finds in them, and nothing on the standard error output."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from perception.errors import SourceError
from perception.server.edge import decoding
from perception.server.problems import Busy


def picture(height: int = 46, width: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def decode(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as header:
            size = header.size
    except Exception:
        size = (1, 1)  # what is no picture is refused before
    return decoding.decode(data, *size)


def opencv(data: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def written(form: str, mode: str, height: int = 46, width: int = 64, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(height, width)[..., ::-1]).convert(mode).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("JPEG", "RGB", {"subsampling": 2, "restart_marker_blocks": 1}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "L", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("BMP", "L", {}),
    ],
)
@pytest.mark.parametrize("orientation", [None, *range(9)])
def test_the_same_pixels_as_opencv(form: str, mode: str, options: dict, orientation: int | None) -> None:
    if orientation is not None and form in ("JPEG", "PNG"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {**options, "exif": exif}
    elif orientation is not None:
        pytest.skip("a format without orientation")
    data = written(form, mode, **options)
    np.testing.assert_array_equal(decode(data), opencv(data))


@pytest.mark.parametrize("shape", [(46, 64), (46, 64, 3)])
def test_sixteen_bits(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    np.testing.assert_array_equal(decode(data), opencv(data))


def test_cmyk() -> None:
    data = written("JPEG", "CMYK", quality=95)
    assert np.abs(decode(data).astype(int) - picture()).mean() < 12


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("seed", range(60))
def test_damaged_files_are_decoded_or_refused_without_a_word(
    form: str, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """What libjpeg, libpng and OpenCV say of them would let clients fill the log."""
    rng = np.random.default_rng(seed)
    data = bytearray(written(form, "RGB"))
    if seed % 3 == 0:
        del data[int(len(data) * rng.uniform(0.1, 0.99)) :]
    else:
        for _ in range(1 + seed % 5):
            data[rng.integers(16, len(data))] = rng.integers(256)
    try:
        image = decode(bytes(data))
    except SourceError as error:
        assert str(error) == "the image is damaged"
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.flags.c_contiguous
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_jpeg_that_was_cut_short_is_shown_as_far_as_it_goes() -> None:
    data = cv2.imencode(".jpg", picture(480, 640))[1].tobytes()
    image = decode(data[: len(data) // 2])
    whole = decode(data)
    assert image.shape == whole.shape
    np.testing.assert_array_equal(image[:120], whole[:120])


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("PNG", "RGB", {"compress_level": 1}),
        ("PNG", "P", {"compress_level": 1}),
        ("WEBP", "RGB", {"lossless": True, "method": 0, "quality": 0}),
        ("BMP", "RGB", {}),
    ],
)
def test_large_pictures(form: str, mode: str, options: dict, capfd: pytest.CaptureFixture[str]) -> None:
    """They are decoded elsewhere, to the same pixels, and as silently."""
    height, width = 1700, 2400
    assert height * width > decoding.LARGE
    if form in ("JPEG", "PNG"):
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {**options, "exif": exif}
    data = written(form, mode, height, width, **options)
    image = decode(data)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    np.testing.assert_array_equal(image, opencv(data))
    if form == "PNG":
        middle = len(data) // 2
        for damaged in (data[:middle], data[:middle] + bytes(64) + data[middle + 64 :]):
            with pytest.raises(SourceError, match="the image is damaged"):
                decode(damaged)
    assert capfd.readouterr() == ("", "")


def test_what_lies_in_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the server in a folder of downloads does not start what is in there."""
    data = written("PNG", "RGB")
    for name in ("cv2", "numpy", "PIL", "struct", "runpy", "simplejpeg", "perception"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nraise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decoding, "LARGE", 0)
    np.testing.assert_array_equal(decode(data), opencv(data))
    assert not (tmp_path / "run").exists()


def test_what_takes_too_long_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LARGE", 0)
    monkeypatch.setattr(decoding, "TIMEOUT_S", 0.001)
    for data in (written("PNG", "RGB"), written("BMP", "RGB", 1000, 1000)):
        with pytest.raises(Busy, match="took too long") as refused:
            decode(data)
        assert refused.value.status == 503
