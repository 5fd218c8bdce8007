"""Videos: containers and codecs, as a user's file and as an upload that becomes a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from perception.annotate import Outputs, annotate_all
from perception.common.bounds import Bounds
from perception.drawing.annotator import Annotator
from perception.errors import PerceptionError
from perception.model import Model, load_model
from perception.server.edge.uploads import check_video
from perception.server.settings import Limits
from perception.sources import open_source
from tests.fuzz import pieces
from tests.fuzz.family import Family, pack, random_for, unpack
from tests.fuzz.mutate import Span, mutated
from tests.media import make_video
from tests.models import write_model

FRAMES = 8
READ = 60
"""Frames that are read of one; a mutation may say that there are more."""


@dataclass(frozen=True)
class Kind:
    """How a file of a kind is made, and where its parts are."""

    suffix: str
    find: Callable[[bytes], list[Span]]
    options: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "mp4": Kind("mp4", pieces.boxes, {"audio": "aac"}),
    "mp4-fragments": Kind("mp4", pieces.boxes, {"container": {"movflags": "frag_keyframe+empty_moov"}, "keyint": 4}),
    "mov": Kind("mov", pieces.boxes, {"codec": "mpeg4", "audio": "pcm_s16le", "rotation": 90.0}),
    "mkv": Kind("mkv", pieces.ebml, {"audio": "libopus"}),
    "webm": Kind("webm", pieces.ebml, {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}),
    "vp8": Kind("webm", pieces.ebml, {"codec": "libvpx"}),
    "avi": Kind("avi", pieces.riff, {"codec": "mpeg4", "audio": "libmp3lame"}),
    "ts": Kind("ts", pieces.packets, {"codec": "mpeg2video", "audio": "aac"}),
    "ps": Kind("mpg", pieces.units, {"codec": "mpeg1video", "fmt": "mpeg"}),
    "flv": Kind("flv", pieces.tags, {"codec": "flv", "audio": "libmp3lame"}),
    "asf": Kind("wmv", pieces.objects, {"codec": "wmv2", "fmt": "asf"}),
    "gif": Kind("gif", pieces.blocks, {"codec": "gif", "pix_fmt": "rgb8"}),
    "ogg": Kind("ogv", pieces.pages, {"codec": "libvpx", "fmt": "ogg"}),
    "mjpeg": Kind("mjpeg", pieces.segments, {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "h264": Kind("h264", pieces.units, {"interlaced": True}),
    "hevc": Kind("hevc", pieces.units, {"codec": "libx265"}),
    "av1": Kind("mkv", pieces.ebml, {"codec": "libsvtav1", "options": {"preset": "12"}}),
    "y4m": Kind("y4m", pieces.frames, {"codec": "wrapped_avframe", "fmt": "yuv4mpegpipe"}),
    "prores": Kind("mov", pieces.boxes, {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
}  # fmt: skip


class Inputs(Family):
    """Each is read as a user's file, or checked and annotated with its sound as the server does it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        logging.getLogger("perception").setLevel(logging.ERROR)  # what is said of damaged files, thousands of times

    @cached_property
    def _seeds(self) -> dict[str, bytes]:
        seeds = {}
        for name, kind in KINDS.items():
            path = self.folder / f"seed.{kind.suffix}"
            try:
                seeds[name] = make_video(path, frames=FRAMES, size_wh=(64, 48), **kind.options).read_bytes()
            except Exception as error:  # an FFmpeg build without that encoder
                logging.getLogger("perception").error("%s is left out: %s", name, error)
            path.unlink(missing_ok=True)
        return seeds

    @cached_property
    def _spans(self) -> dict[str, list[Span]]:
        return {name: KINDS[name].find(data) for name, data in self._seeds.items()}

    @cached_property
    def _model(self) -> Model:
        path = write_model(self.folder / "colors.onnx", detection=True)
        model = load_model(path, mode="throughput", precision="fp32", threads=1)
        path.unlink()
        return model

    def make(self, seed: int, index: int) -> bytes:
        random = random_for("containers", seed, index)
        name = random.choice(list(self._seeds))
        body = mutated(random, self._seeds[name], self._spans[name])
        if random.random() < 0.03:
            body = body[: random.randrange(len(body) + 1)] + random.choice(list(self._seeds.values()))
        how = "job" if random.random() < 0.2 else random.choice(("file", "bounded"))
        return pack(body, how=how, suffix=KINDS[name].suffix if random.random() < 0.9 else "mp4")

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        path = self.folder / f"input.{head['suffix']}"
        path.write_bytes(body)
        try:
            if head["how"] == "job":
                self._annotate(path)
            else:
                self._read(path, Bounds(Limits().video_pixels) if head["how"] == "bounded" else None)
        finally:
            path.unlink()
        return True

    def _read(self, path: Path, bounds: Bounds | None) -> None:
        with open_source(path, max_frames=READ, bounds=bounds) as source:
            for frame in source:
                assert frame.image.shape[2] == 3

    def _annotate(self, path: Path) -> None:
        check_video(path, path.name, Limits())
        video, lines = self.folder / "out.mp4", self.folder / "out.jsonl"
        outputs = Outputs(video=str(video), jsonl=str(lines))
        try:
            (result,) = annotate_all(
                [str(path)],
                self._model,
                outputs,
                annotator=Annotator(self._model.card),
                source_options={"max_frames": READ},
            )
            if result.error is not None:
                raise result.error
        except PerceptionError:
            assert not [*self.folder.glob("*.part*")]
            raise
        finally:
            video.unlink(missing_ok=True)
            lines.unlink(missing_ok=True)

    def close(self) -> None:
        self._model.close()
