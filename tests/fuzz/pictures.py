"""Pictures: as a client's upload, as a user's file, and as one of a data set."""

from __future__ import annotations

import contextlib
import io
import os
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

from perception.common.bounds import Bounds
from perception.evaluation.pictures import BadPicture, read_labels, read_picture
from perception.server.edge.uploads import read_image as read_upload
from perception.server.settings import Limits
from perception.sources import open_source
from tests.fuzz import pieces
from tests.fuzz.family import Family, pack, random_for, unpack
from tests.fuzz.mutate import Span, mutated
from tests.media import make_video, quadrants

FINDERS = {"jpg": pieces.segments, "png": pieces.chunks, "webp": pieces.riff, "bmp": pieces.nothing,
           "tif": pieces.directory, "gif": pieces.blocks, "avif": pieces.boxes, "heic": pieces.boxes,
           "jp2": pieces.boxes, "ppm": pieces.nothing}  # fmt: skip


class Inputs(Family):
    """See `perception.server.edge.decoding`, `perception.sources.images`, `perception.evaluation.pictures`."""

    @cached_property
    def _seeds(self) -> list[tuple[str, bytes]]:
        image = quadrants((64, 48))
        noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        seeds = []
        for suffix in ("jpg", "png", "webp", "bmp", "tif", "jp2", "ppm", "avif", "gif"):
            for picture in (image, noise):
                with contextlib.suppress(cv2.error):
                    ok, data = cv2.imencode(f".{suffix}", picture)
                    seeds += [(suffix, data.tobytes())] if ok else []
        rgb = Image.fromarray(image[..., ::-1])
        exif = Image.Exif()
        exif[0x0112] = 6
        for form, mode, options in (
            ("JPEG", "RGB", {"progressive": True, "exif": exif}), ("JPEG", "CMYK", {}), ("JPEG", "L", {}),
            ("PNG", "P", {}), ("PNG", "LA", {"exif": exif}), ("PNG", "1", {}), ("PNG", "I;16", {}),
            ("WEBP", "RGBA", {"lossless": True, "exif": exif}), ("BMP", "L", {}), ("BMP", "P", {}),
            ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "RGB", {"compression": "jpeg"}),
            ("TIFF", "1", {"compression": "group4"}), ("GIF", "P", {}),
        ):  # fmt: skip
            file = io.BytesIO()
            with contextlib.suppress(OSError, ValueError, KeyError):
                (rgb.convert("L").convert("I;16") if mode == "I;16" else rgb.convert(mode)).save(file, form, **options)
                seeds.append(({"JPEG": "jpg", "TIFF": "tif"}.get(form, form.lower()), file.getvalue()))
        with contextlib.suppress(Exception):  # an FFmpeg build without that encoder
            path = self.folder / "seed.avif"
            os.environ.setdefault("SVT_LOG", "1")
            make_video(path, frames=1, size_wh=(64, 64), codec="libsvtav1", fmt="avif", options={"preset": "12"})
            seeds += [("avif", path.read_bytes()), ("heic", path.read_bytes())]
            path.unlink()
        return seeds

    @cached_property
    def _spans(self) -> list[list[Span]]:
        return [FINDERS[suffix](data) for suffix, data in self._seeds]

    def make(self, seed: int, index: int) -> bytes:
        random = random_for("pictures", seed, index)
        number = random.randrange(len(self._seeds))
        suffix, good = self._seeds[number]
        body = mutated(random, good, self._spans[number])
        if suffix == "png" and random.random() < 0.7:
            body = pieces.with_sums(body)
        how = random.choice(("upload", "upload", "file", "bounded", "data", "label"))
        return pack(body, how=how, suffix=suffix)

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        if head["how"] == "upload":
            read_upload(body, Limits())
            return True
        path = self.folder / f"input.{head['suffix']}"
        path.write_bytes(body)
        try:
            if head["how"] in ("file", "bounded"):
                with open_source(path, bounds=Bounds(Limits().pixels) if head["how"] == "bounded" else None) as source:
                    assert next(source).image.ndim == 3
            else:
                assert (read_labels if head["how"] == "label" else read_picture)(path).ndim >= 2
        except BadPicture:
            return False
        finally:
            path.unlink()
        return True
