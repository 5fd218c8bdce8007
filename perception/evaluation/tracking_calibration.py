"""Settings of the tracker for the boxes of one detector, found on sequences whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.card import TrackingSettings
from perception.errors import UsageError
from perception.evaluation.tracking import TrackingResult, combine, measure_tracking
from perception.tracking.files import as_mot, detections_of, track_frames
from perception.tracking.mot_text import MotText, read_mot
from perception.types import Detections

TRIALS = 300
WIDE = 0.3
"""This part of the trials looks everywhere, the rest near the best."""
RANGES: dict[str, tuple[float, float]] = {
    "high_score": (0.1, 0.9), "low_score": (0.02, 0.5), "start_score": (0.1, 0.9), "sure_score": (0.3, 1.0),
    "overlap": (0.05, 0.6), "low_overlap": (0.05, 0.6), "lost_overlap": (0.02, 0.6), "new_overlap": (0.05, 0.6),
    "confirm_s": (0.02, 0.4), "patience_s": (0.03, 0.3), "memory_s": (0.3, 5.0), "jitter": (0.008, 0.08),
}  # fmt: skip
LOGARITHMIC = ("confirm_s", "patience_s", "memory_s", "jitter")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSequence:
    """Detections of one video, and the truth.

    Attributes:
        name: for tables.
        truth: its tracks.
        frames: number and detections of each frame.
        classes: number of classes of the detections.
        fps: frames per second.
        size: (width, height) of the frames, or None.
        length: number of frames.
    """

    name: str
    truth: MotText
    frames: list[tuple[int, Detections]]
    classes: int
    fps: float
    size: tuple[int, int] | None
    length: int


def read_sequence(
    name: str, truth: Path, detections: Path, fps: float, size: tuple[int, int] | None
) -> LabelledSequence:
    """Read a sequence from two files of MOT text.

    Raises:
        UsageError: one of them cannot be read.
    """
    rows, true = read_mot(detections), read_mot(truth)
    frames, classes = detections_of(rows)
    return LabelledSequence(name, true, frames, classes, fps, size, max(rows.last_frame, true.last_frame))


def read_sequences(folder: str | Path) -> list[LabelledSequence]:
    """Read all sequences of a folder: in each folder below it ``seqinfo.ini``, ``gt.txt`` and ``det.txt``.

    In place of the latter two, ``gt/gt.txt`` and ``det/det.txt``, as the MOT Challenge has them.

    Raises:
        UsageError: there is none, or one is not complete.
    """
    found = []
    for ini in sorted(Path(folder).glob("*/seqinfo.ini")):
        try:
            parser = ConfigParser()
            parser.read(ini, encoding="utf-8")
            about = parser["Sequence"]
            fps, size = about.getfloat("frameRate"), (about.getint("imWidth"), about.getint("imHeight"))
        except (IniError, KeyError, ValueError, UnicodeDecodeError) as error:
            raise UsageError(f"no description of a sequence: {error}", ini) from None
        if fps is None or not fps > 0 or size[0] is None or size[1] is None:
            raise UsageError("lacks frameRate, imWidth or imHeight", ini)
        files = [next((p for p in (ini.parent / f"{kind}.txt", ini.parent / kind / f"{kind}.txt") if p.is_file()), None)
                 for kind in ("gt", "det")]  # fmt: skip
        if files[0] is None or files[1] is None:
            raise UsageError("lacks gt.txt or det.txt beside its seqinfo.ini", ini.parent)
        found.append(read_sequence(ini.parent.name, files[0], files[1], fps, (size[0], size[1])))
    if not found:
        raise UsageError("no sequences there: folders with seqinfo.ini, gt.txt and det.txt", folder)
    return found


def track_sequence(sequence: LabelledSequence, settings: TrackingSettings | None) -> TrackingResult:
    """Track a sequence and measure the result."""
    tracked = track_frames(sequence.frames, sequence.classes, sequence.fps, sequence.size, settings)
    return measure_tracking(sequence.truth, as_mot(tracked), sequence.name)


def score_of(results: Sequence[TrackingResult]) -> float:
    """HOTA that counts boxes and sequences alike: the mean of that of all boxes and the mean of the sequences'."""
    return 0.5 * combine(results).hota + 0.5 * float(np.mean([result.hota for result in results]))


def calibrate(
    sequences: Sequence[LabelledSequence],
    trials: int = TRIALS,
    seed: int = 0,
    start: TrackingSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrackingSettings:
    """Search for the settings of the best `score_of`: at random, then near the best.

    Args:
        sequences: with the detections of one detector.
        trials: settings to try.
        seed: of the search.
        start: what to begin with; the usual settings by default.
        progress: called with the trials done and all.
    """
    rng = np.random.default_rng(seed)
    best = start or TrackingSettings()
    least = score_of([track_sequence(sequence, best) for sequence in sequences])
    for trial in range(trials):
        changed = _everywhere(rng) if trial < WIDE * trials else _near(best, rng)
        score = score_of([track_sequence(sequence, changed) for sequence in sequences])
        if score > least:
            best, least = changed, score
        if progress is not None:
            progress(trial + 1, trials)
    return best


def _everywhere(rng: np.random.Generator) -> TrackingSettings:
    """The usual settings, about half of them replaced by any."""
    names = [name for name in RANGES if rng.random() < 0.5]
    return TrackingSettings(**{name: _value(name, float(rng.random())) for name in names})


def _near(best: TrackingSettings, rng: np.random.Generator) -> TrackingSettings:
    names = rng.choice(list(RANGES), int(rng.integers(1, 4)), replace=False).tolist()
    return best.model_copy(
        update={name: _value(name, _part(name, getattr(best, name)) + float(rng.normal(0, 0.12))) for name in names}
    )


def _value(name: str, part: float) -> float:
    """The value at a part, 0 to 1, of a setting's range; to four digits."""
    low, high = RANGES[name]
    part = min(max(part, 0.0), 1.0)
    value = low * (high / low) ** part if name in LOGARITHMIC else low + (high - low) * part
    return float(f"{value:.4g}")


def _part(name: str, value: float) -> float:
    low, high = RANGES[name]
    value = min(max(value, low), high)
    return math.log(value / low) / math.log(high / low) if name in LOGARITHMIC else (value - low) / (high - low)
