"""Pictures and label PNGs from files, or what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from perception.errors import SourceError
from perception.types import U8

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # FF 00 is a pixel's FF, FF D0 to D7 stand within scans
_EOI, _ALONE = 0xD9, (0x01, 0xD8)
_GRAY, _PALETTE = 0, 3  # colour types of PNG


class BadPicture(Exception):
    """``str(error)`` says what is wrong; the file's name is known to the caller."""


def is_picture(name: str) -> bool:
    """Return whether a file of that name is read as a picture. Hidden ones are not: macOS puts its notes there."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not Path(name).name.startswith(".")


def picture_paths(folder: Path) -> list[Path]:
    """List the pictures of a folder, ordered by name.

    Raises:
        SourceError: there is no such folder, or it has none.
    """
    if not folder.is_dir():
        raise SourceError("no such folder", folder)
    paths = sorted(p for p in folder.iterdir() if is_picture(p.name) and p.is_file())
    if not paths:
        raise SourceError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in this folder", folder)
    return paths


def read_picture(path: Path) -> U8:
    """Read a picture as uint8 ``[H, W, 3]`` BGR, upright.

    Raises:
        BadPicture: the file cannot be read, is cut short, or is no picture.
    """
    return decode_picture(_read(path, "image"))


def decode_picture(data: bytes) -> U8:
    """Decode the bytes of a picture file, as `read_picture`."""
    if _is_cut_short(data):
        raise BadPicture("corrupt image (the file is cut short)")
    return _decode(data, cv2.IMREAD_COLOR, "corrupt image")


def read_labels(path: Path) -> U8:
    """Read class ids as uint8 ``[H, W]``: the values of a gray PNG, the palette indices of a palette PNG.

    Raises:
        BadPicture: the file is missing, damaged, or has not one channel of at most 8 bits.
    """
    data = _read(path, "label")
    if not data.startswith(_PNG) or len(data) < 33 or _is_cut_short(data):
        raise BadPicture("corrupt label (not a complete PNG)")
    depth, kind = data[24], data[25]
    if kind == _PALETTE:
        return _palette_indices(data)
    labels = _decode(data, cv2.IMREAD_UNCHANGED, "corrupt label")
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise BadPicture(f"a label must be 8-bit with one channel, not {labels.dtype} {labels.shape}")
    if kind == _GRAY and depth < 8:  # decoders stretch such values to 0..255
        labels //= np.uint8(255 // (2**depth - 1))
    return labels


def _read(path: Path, what: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadPicture(f"missing {what}") from None
    except (OSError, ValueError) as error:  # or a name that no file can have
        raise BadPicture(f"the {what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise BadPicture(f"corrupt {what} (the file is empty)")
    return data


def _decode(data: bytes, flags: int, fault: str) -> U8:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None:
        raise BadPicture(fault)
    return np.ascontiguousarray(image)


def _is_cut_short(data: bytes) -> bool:
    """Return whether the end is missing. Decoders do not tell: they fill the rest with gray."""
    if data.startswith(_JPEG):
        return not _jpeg_ends(data)
    if data.startswith(_PNG):
        return not _png_ends(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return False


def _jpeg_ends(data: bytes) -> bool:
    """Return whether the picture's own end is there (ITU-T T.81, B.1), not a thumbnail's nor that of trailing data."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = found.group()[-1], found.end()
        if marker == _EOI:
            return True
        if marker not in _ALONE:
            # Within a segment anything may stand; what follows a scan's are its pixels, in which no marker occurs.
            at += int.from_bytes(data[at : at + 2], "big")
    return False


def _png_ends(data: bytes) -> bool:
    """Return whether all chunks are there up to the last one, IEND (ISO/IEC 15948, 5.3)."""
    at = len(_PNG)
    while at + 12 <= len(data):
        following = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IEND":
            return following <= len(data)
        at = following
    return False


def _palette_indices(data: bytes) -> U8:
    """OpenCV gives a palette PNG's colours; FFmpeg gives the indices."""
    import av

    try:
        decoder = av.CodecContext.create("png", "r")
        (frame,) = decoder.decode(av.Packet(data))
        if frame.format.name != "pal8":
            raise BadPicture(f"a label must be 8-bit with one channel, not {frame.format.name}")
        indices = frame.to_ndarray()
    except (av.FFmpegError, ValueError):
        raise BadPicture("corrupt label") from None
    if isinstance(indices, tuple):  # with the palette
        indices = indices[0]
    return np.ascontiguousarray(indices[: frame.height, : frame.width])


def same_stems(paths: list[Path]) -> dict[str, list[Path]]:
    """Files that differ only in their suffix, by stem."""
    by_stem: dict[str, list[Path]] = {}
    for path in paths:
        by_stem.setdefault(path.stem, []).append(path)
    return {stem: same for stem, same in by_stem.items() if len(same) > 1}
