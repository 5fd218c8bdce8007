"""Predictions, cards and small media for the tests of the sinks, all generated."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from perception.card import ModelCard, validate_card
from perception.picture.conversions import to_bgr
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import LogitsClassMap
from perception.types import ClassMap, Detections, Frame, Planes, Prediction, SourceInfo


def card(*, detection: bool = True, segmentation: bool = True, classification: bool = False) -> ModelCard:
    data: dict[str, Any] = {"name": "toy", "licence": "CC0", "input": {"width": 64, "height": 48}}
    if detection:
        data["detection"] = {
            "classes": [{"name": "car", "color": (255, 0, 0)}, {"name": "person", "color": (0, 255, 0)}]
        }
    if segmentation:
        colors = [(128, 64, 128), (70, 130, 180), (0, 0, 142)]
        data["segmentation"] = {
            "classes": [{"name": n, "color": c} for n, c in zip(("road", "sky", "tree"), colors, strict=True)]
        }
    if classification:
        data["classification"] = {"classes": [{"name": n, "color": (0, 0, 0)} for n in ("day", "night")]}
    return validate_card(data, "test")


def info(**changes: Any) -> SourceInfo:
    known: dict[str, Any] = {
        "uri": "synthetic:",
        "kind": "synthetic",
        "width": 64,
        "height": 48,
        "fps": Fraction(25),
        "time_base": Fraction(1, 12800),
    }
    return SourceInfo(**(known | changes))


def class_map(mask: np.ndarray, ignored: tuple[int, ...] = ()) -> ClassMap:
    """A class map whose mask is ``mask`` exactly: logits at frame size, one class far ahead."""
    height, width = mask.shape
    logits = np.full((3, height, width), -10, np.float32)
    np.put_along_axis(logits, mask[None].astype(np.intp), 10, 0)
    return LogitsClassMap(logits, Letterbox.fit(width, height, width, height), ignored)


def image(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture that shows its index: grey, as bright as the index is high, 4 levels a step from 20."""
    return np.full((height, width, 3), 20 + 4 * (index % 55), np.uint8)


def shown_index(picture: np.ndarray) -> int:
    """The index (modulo 55) that a decoded BGR picture shows."""
    return round((float(np.median(picture)) - 20) / 4)


def prediction(
    index: int = 0, *, pts: int | None = None, time_base: Fraction = Fraction(1, 12800), **more: Any
) -> Prediction:
    picture = more.pop("picture", None)
    if picture is None:
        picture = image(index)
    pts = 512 * index if pts is None else pts
    plain = to_bgr(picture)
    source = more.pop("source", "synthetic:")
    frame = Frame(plain, index=index, time=float(pts * time_base), source=source, pts=pts, time_base=time_base)
    return Prediction(frame, picture=picture, **more)


def planes(rng: np.random.Generator, width: int, height: int, *, buffer: bool = True, **tags: Any) -> Planes:
    """Noise within the limited range. Odd sizes never have a buffer."""
    if width % 2 or height % 2 or not buffer:
        half = (height + 1) // 2, (width + 1) // 2
        y, u, v = (rng.integers(16, 236, s, np.uint8) for s in ((height, width), half, half))
        return Planes(y, u, v, **tags)
    memory = rng.integers(16, 236, (height * 3 // 2, width), np.uint8)
    return Planes.from_i420(memory, **tags)


def detections(n: int, seed: int = 0, tracks: bool = False) -> Detections:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, (n, 4)).astype(np.float32)
    corners[:, 2:] = corners[:, :2] + rng.uniform(1, 8, (n, 2)).astype(np.float32)
    scores = np.sort(rng.uniform(0, 1, n).astype(np.float32))[::-1].copy()
    ids = rng.integers(0, 2, n).astype(np.int32)
    return Detections(corners, scores, ids, np.arange(100, 100 + n) if tracks else None)


def make_video(
    path: Path,
    *,
    pts: Sequence[int] = tuple(range(0, 50 * 512, 512)),
    time_base: Fraction = Fraction(1, 12800),
    audio: str | None = "aac",
    audio_s: float = 2.0,
    size: tuple[int, int] = (64, 48),
    start_s: int = 0,
) -> Path:
    """A file with video at the given time stamps and a tone."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, width=size[0], height=size[1], time_base=time_base)
        video.pix_fmt = "yuv420p"
        sound = None
        if audio:
            sound = out.add_stream(audio, rate=48000)
            sound.codec_context.layout = "stereo"
        for i, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(image(i, *size), format="bgr24")
            frame.pts, frame.time_base = stamp + int(start_s / time_base), time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            total = int(48000 * audio_s)
            tone = (np.sin(np.arange(total) * 2 * np.pi * 440 / 48000) * 8000).astype(np.int16)
            for at in range(0, total, 4096):
                part = np.repeat(tone[at : at + 4096], 2)[None]
                chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="s16", layout="stereo")
                chunk.sample_rate, chunk.pts, chunk.time_base = 48000, at + start_s * 48000, Fraction(1, 48000)
                out.mux(sound.encode(chunk))
            out.mux(sound.encode(None))
    return path


def packets(path: Path, kind: str) -> list[tuple[Fraction, Fraction, int]]:
    """Start, duration (both in seconds) and size of the packets of the first stream of a kind, by start."""
    with av.open(str(path)) as container:
        streams = getattr(container.streams, kind)
        if not streams:
            return []
        found = [
            (Fraction(p.pts * p.time_base), Fraction((p.duration or 0) * p.time_base), p.size)
            for p in container.demux(streams[0])
            if p.size
        ]
    return sorted(found)


def pictures(path: Path) -> list[np.ndarray]:
    """The decoded frames, BGR."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="bgr24") for f in container.decode(video=0)]


def run_script(script: str, *args: str, **options: Any) -> subprocess.Popen[bytes]:
    """Python code in a process of its own, with ``sys.argv[1:]`` as given."""
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", script, *args], cwd=root, **options)


def take_away(path: Path, how: str) -> None:
    """A file being written is ``removed``, ``moved`` (to ``other``) or ``replaced``, or its ``folder`` is removed."""
    if how == "folder":
        shutil.rmtree(path.parent)
    elif how == "moved":
        path.rename(path.with_name("other"))
    else:
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"another's")
