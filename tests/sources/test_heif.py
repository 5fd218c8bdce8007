"""Pictures of phones: whole, in tiles, turned and mirrored; damaged ones; and those that cannot be read."""

import logging
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from perception.errors import SourceError
from perception.sinks.priority import ordinary_priority
from perception.sources import open_source
from perception.sources.images import read_image
from tests.media import make_image, quadrants

CASES = Path(__file__).parents[1] / "cases"
TILE = 64


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind, version, *parts):
    return box(kind, bytes([version, 0, 0, 0]), *parts)


def scene(width, height):
    """A picture that tells every place and orientation apart: smooth colours, and a bright corner."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([x * 200 // width + 20, y * 200 // height + 20, (x + y) * 0 + 60], -1).astype(np.uint8)
    image[: height // 4, : width // 4] = 230
    return image


def coded_tile(folder, image):
    """The AV1 codec configuration and picture of one tile, out of an AVIF file by FFmpeg."""
    path = folder / "tile.avif"
    os.environ.setdefault("SVT_LOG", "1")  # as the video sink does: errors only
    with ordinary_priority(), av.open(str(path), "w", format="avif") as out:
        stream = out.add_stream("libsvtav1", rate=1, options={"crf": "8", "preset": "8", "svtav1-params": "avif=1"})
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], "yuv420p"
        frame = av.VideoFrame.from_ndarray(image, "bgr24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data = path.read_bytes()
    at = data.index(b"av1C")
    size = int.from_bytes(data[at - 4 : at], "big")
    with av.open(str(path)) as read:
        picture = b"".join(bytes(p) for p in read.demux(video=0) if p.size)
    return data[at - 4 : at - 4 + size], picture


def make_grid(folder, rows, columns, size_wh, *, turns=(), wide=False, external=False):
    """An AVIF file in tiles, as phones write HEIC; and the picture in it before it is turned."""
    width, height = size_wh
    whole = np.zeros((rows * TILE, columns * TILE, 3), np.uint8)
    whole[:height, :width] = scene(width, height)
    tiles = [
        coded_tile(folder, np.ascontiguousarray(whole[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE]))
        for r in range(rows)
        for c in range(columns)
    ]
    count = len(tiles)
    primary = count + 1
    grid = bytes([0, 1 if wide else 0, rows - 1, columns - 1]) + struct.pack(">II" if wide else ">HH", width, height)
    infos = [full(b"infe", 2, struct.pack(">HH", i + 1, 0), b"av01", b"\0") for i in range(count)]
    infos.append(full(b"infe", 2, struct.pack(">HH", primary, 0), b"grid", b"\0"))
    properties = [
        tiles[0][0],
        full(b"ispe", 0, struct.pack(">II", TILE, TILE)),
        full(b"ispe", 0, struct.pack(">II", width, height)),
        *(box(kind, bytes([how])) for kind, how in turns),
    ]
    of_tile = bytes([2, 0x81, 2])
    of_grid = bytes([1 + len(turns), 3, *(0x80 | 4 + i for i in range(len(turns)))])
    links = b"".join(struct.pack(">H", i + 1) + of_tile for i in range(count)) + struct.pack(">H", primary) + of_grid

    def meta(base):
        places = b""
        at = base
        for i, (_, picture) in enumerate(tiles):
            places += struct.pack(">HHHHII", i + 1, 0, 0, 1, at, len(picture))
            at += len(picture)
        method = 0 if external else 1
        places += struct.pack(">HHHHII", primary, method, 0, 1, at if external else 0, len(grid))
        return full(
            b"meta",
            0,
            full(b"hdlr", 0, b"\0\0\0\0pict", bytes(13)),
            full(b"pitm", 0, struct.pack(">H", primary)),
            full(b"iloc", 1, b"\x44\x00", struct.pack(">H", count + 1), places),
            full(b"iinf", 0, struct.pack(">H", count + 1), *infos),
            full(b"iref", 0, box(b"dimg", struct.pack(f">HH{count}H", primary, count, *range(1, count + 1)))),
            box(b"iprp", box(b"ipco", *properties), full(b"ipma", 0, struct.pack(">I", count + 1), links)),
            b"" if external else box(b"idat", grid),
        )

    head = box(b"ftyp", b"avif\0\0\0\0mif1avif")
    base = len(head) + len(meta(0)) + 8
    media = b"".join(picture for _, picture in tiles) + (grid if external else b"")
    path = folder / "grid.avif"
    path.write_bytes(head + meta(base) + box(b"mdat", media))
    return path, whole[:height, :width]


def close(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("cut", [(0, 0), (10, 26)])
def test_tiles_become_one_picture(tmp_path, rows, columns, cut):
    size = columns * TILE - cut[0], rows * TILE - cut[1]
    path, expected = make_grid(tmp_path, rows, columns, size, wide=cut != (0, 0), external=rows == 2)
    close(read_image(path), expected)
    with open_source(path) as source:
        assert (source.info.kind, source.info.width, source.info.height) == ("images", *size)
        assert len(list(source)) == 1


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirror", [None, 0, 1])
def test_tiles_are_turned_as_a_whole(tmp_path, quarters, mirror):
    turns = [(b"irot", quarters)] if quarters else []
    if mirror is not None:
        turns.append((b"imir", mirror))
    path, expected = make_grid(tmp_path, 2, 3, (180, 110), turns=turns)
    expected = np.rot90(expected, quarters)
    if mirror is not None:
        expected = expected[::-1] if mirror == 0 else expected[:, ::-1]
    close(read_image(path), expected)


def test_a_phones_picture_in_hevc_tiles():
    image = read_image(CASES / "grid.heic")
    assert image.shape == (960, 1280, 3)
    # No seam: the picture is as smooth across the tiles' edges as beside them.
    at_seam = np.abs(image[:, 512].astype(int) - image[:, 511]).mean()
    beside = np.abs(image[:, 508].astype(int) - image[:, 507]).mean()
    assert at_seam < beside + 6


def test_the_ending_does_not_matter(tmp_path):
    data = (CASES / "grid.heic").read_bytes()
    (tmp_path / "renamed.jpg").write_bytes(data)
    assert read_image(tmp_path / "renamed.jpg").shape == (960, 1280, 3)
    for name in ("renamed.mp4", "none"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=r"a picture \(HEIF\), not a video"):
            open_source(tmp_path / name)


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_no_crash_and_never_one_tile(tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray((CASES / "grid.heic").read_bytes())
    if seed % 2:
        data = data[: int(rng.integers(30, len(data)))]
    else:
        for at in rng.integers(0, 650, 3):
            data[at] = int(rng.integers(0, 256))
    path = tmp_path / "x.heic"
    path.write_bytes(bytes(data))
    image = read_image(path)
    assert image is None or image.shape != (512, 512, 3)


def test_pictures_that_cannot_be_read_are_named(tmp_path, caplog):
    make_image(tmp_path / "a.jpg", quadrants())
    for name in ("b.jxl", "c.JXL", "d.dng"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING, "perception"), open_source(tmp_path) as source:
        assert len(list(source)) == 1
    assert "b.jxl, c.JXL, d.dng cannot be read" in caplog.text
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(SourceError, match=r"b\.jxl, c\.JXL, d\.dng cannot be read: convert them"):
        open_source(tmp_path)


def test_phone_pictures_of_a_folder_are_read_with_the_others(tmp_path):
    make_image(tmp_path / "1.jpg", quadrants())
    (tmp_path / "2.heic").write_bytes((CASES / "grid.heic").read_bytes())
    with open_source(tmp_path) as source:
        assert [(f.width, f.height) for f in source] == [(64, 48), (1280, 960)]
