"""What video encoders cost on annotated frames: processor time, size and quality, the usual settings first.

Quality is that of the encoded luma against that of the annotated frames.
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from perception.drawing.annotator import Annotator
from perception.model import Model
from perception.pipeline import run
from perception.sinks import open_sink
from perception.sinks.codecs import CODECS, choose_encoder
from perception.sources import open_source
from perception.types import F32

SETTINGS = (
    ("h264", None),
    ("h264", "ultrafast"),
    ("h264", "veryfast"),
    ("h264", "medium"),
    ("hevc", None),
    ("vp9", None),
    ("av1", None),
)
"""Codec and preset; None is what the package uses."""
FRAMES = 100
FPS = 25
ROUNDS = 3


def encoder_rows(model: Model, clip: Path, folder: Path) -> list[dict[str, Any]]:
    """Measure encoders on the first frames of a clip as a model annotates them.

    Returns:
        a row for each of `SETTINGS` that is there: core-milliseconds a frame (median of a few turns), kbit/s at 25
        frames a second, PSNR in dB and SSIM of the luma, and how many times the usual H.264 needs less time.
    """
    frames = _annotated(model, clip, folder / "annotated.mkv")
    settings = [one for one in SETTINGS if CODECS[one[0]] in av.codecs_available]
    paths = [folder / f"{codec}-{preset}.mkv" for codec, preset in settings]
    times: list[list[float]] = [[] for _ in settings]
    for _ in range(ROUNDS):
        for (codec, preset), path, measured in zip(settings, paths, times, strict=True):
            measured.append(_encode(frames, codec, preset, path))
    rows = []
    for (codec, preset), path, measured in zip(settings, paths, times, strict=True):
        psnr, ssim = _quality(frames, path)
        ms = float(np.median(measured))
        rows.append(
            {
                "encoder": f"{codec}, {preset or 'as by default'}",
                "core_ms": round(ms, 2),
                "kbit_s": round(path.stat().st_size * 8e-3 / (len(frames) / FPS)),
                "psnr_db": round(psnr, 2),
                "ssim": round(ssim, 4),
                "default_times_faster": round(ms / float(np.median(times[0])), 2),
            }
        )
    return rows


def _annotated(model: Model, clip: Path, path: Path) -> list[av.VideoFrame]:
    with open_source(str(clip), max_frames=FRAMES) as source:
        sink = open_sink(str(path), overwrite=True, preset="ultrafast", crf=0, audio=False)
        run(source, model, annotator=Annotator(model.card), sinks=[sink])
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index, Fraction(1, FPS)
        frame.pict_type = (
            av.video.frame.PictureType.NONE
        )  # else the encoder would repeat the types of the lossless file
    return frames


def _encode(frames: list[av.VideoFrame], codec: str, preset: str | None, path: Path) -> float:
    """Encode frames into a file, and give the core-milliseconds of each."""
    first = frames[0]
    encoder = choose_encoder("matroska", codec, None, preset, None, str(path))
    started = time.process_time()
    with av.open(str(path), "w") as output:
        stream = encoder.add_to(output, (first.width, first.height), Fraction(FPS), Fraction(1, FPS), 10 * FPS)
        for frame in frames:
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return 1e3 * (time.process_time() - started) / len(frames)


def _quality(frames: list[av.VideoFrame], path: Path) -> tuple[float, float]:
    """Give the PSNR of a whole file in dB, and its mean SSIM, both of the luma."""
    errors, similarities = [], []
    with av.open(str(path)) as container:
        for whole, lossy in zip(frames, container.decode(video=0), strict=True):
            a, b = _luma(whole), _luma(lossy)
            errors.append(float(((a - b) ** 2).mean()))
            similarities.append(_ssim(a, b))
    return float(10 * np.log10(255**2 / max(float(np.mean(errors)), 1e-9))), float(np.mean(similarities))


def _luma(frame: av.VideoFrame) -> F32:
    planes = frame.to_ndarray(format="yuv420p")
    return np.asarray(planes[: frame.height], np.float32)


def _ssim(a: F32, b: F32) -> float:
    """Mean structural similarity of two pictures, as Wang et al., "Image quality assessment", 2004."""

    def smooth(image: Any) -> F32:
        return np.asarray(cv2.GaussianBlur(image, (11, 11), 1.5), np.float32)

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())
