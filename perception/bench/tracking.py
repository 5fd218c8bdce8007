"""Trackers side by side: ours, and those of the package ``trackers`` where it is installed."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception.card import TrackingSettings
from perception.evaluation.tracking import TrackingResult, combine, measure_tracking
from perception.evaluation.tracking_calibration import (
    LabelledSequence,
    calibrate,
    read_sequences,
    score_of,
)
from perception.tracking.files import as_mot, track_frames
from perception.tracking.mot_text import MotText
from perception.types import Detections

OTHERS = {
    "SORT": ("trackers.core.sort.tracker", "SORTTracker"),
    "ByteTrack": ("trackers.core.bytetrack.tracker", "ByteTrackTracker"),
    "OC-SORT": ("trackers.core.ocsort.tracker", "OCSORTTracker"),
    "BoT-SORT": ("trackers.core.botsort.tracker", "BoTSORTTracker"),
    "C-BIoU": ("trackers.core.cbiou.tracker", "CBIoUTracker"),
}
"""Those that need no picture."""
WITHOUT_PICTURES = {"BoT-SORT": {"enable_cmc": False}}

Run = Callable[[LabelledSequence, Any], MotText]


def tracking_rows(folder: Path, trials: int) -> Iterator[dict[str, Any]]:
    """A row for each tracker: HOTA with its own settings, and on half of the sequences when calibrated on the others.

    Args:
        folder: of sequences, see `perception.evaluation.tracking_calibration.read_sequences`.
        trials: settings that each is calibrated with; 0: none is.

    Yields:
        the rows, ours first.
    """
    sequences = read_sequences(folder)
    half, other = sequences[::2], sequences[1::2]
    frames = sum(sequence.length for sequence in sequences)
    for name, run, search in _trackers():
        started = time.perf_counter()
        usual = {sequence.name: _measure(run, sequence, None) for sequence in sequences}
        spent = time.perf_counter() - started
        row: dict[str, Any] = {
            "tracker": name,
            "HOTA": round(combine(list(usual.values())).hota, 4),
            "mean of sequences": round(float(np.mean([result.hota for result in usual.values()])), 4),
        }
        if other:
            row["other half"] = round(combine([usual[sequence.name] for sequence in other]).hota, 4)
        if trials and other:
            found = search(half, trials)
            row["calibrated"] = round(combine([_measure(run, sequence, found) for sequence in other]).hota, 4)
        yield {**row, "ms/frame": round(1e3 * spent / frames, 3)}


def _measure(run: Run, sequence: LabelledSequence, settings: Any) -> TrackingResult:
    return measure_tracking(sequence.truth, run(sequence, settings), sequence.name)


def _trackers() -> Iterator[tuple[str, Run, Callable[[Sequence[LabelledSequence], int], Any]]]:
    """Name, how it tracks, and how its settings are found."""
    yield "perception", _ours, calibrate
    for name, (module, kind) in OTHERS.items():
        try:
            made = getattr(importlib.import_module(module), kind)
        except ImportError:  # not installed: pip install trackers
            return
        yield name, *_other(made, WITHOUT_PICTURES.get(name, {}))


def _ours(sequence: LabelledSequence, settings: TrackingSettings | None) -> MotText:
    return as_mot(track_frames(sequence.frames, sequence.classes, sequence.fps, sequence.size, settings))


def _other(kind: Any, fixed: dict[str, Any]) -> tuple[Run, Callable[[Sequence[LabelledSequence], int], Any]]:
    def run(sequence: LabelledSequence, settings: dict[str, Any] | None) -> MotText:
        import supervision

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tracker = kind(frame_rate=sequence.fps, **{**(settings or {}), **fixed})
            found = dict(sequence.frames)
            rows = []
            for frame in range(1, sequence.length + 1):
                given = found.get(frame, Detections.empty())
                tracked = tracker.update(
                    supervision.Detections(xyxy=given.boxes, confidence=given.scores, class_id=given.class_ids)
                )
                if tracked.tracker_id is not None and len(tracked):
                    keep = tracked.tracker_id >= 0
                    ids = tracked.tracker_id[keep].astype(np.int64)
                    boxes = tracked.xyxy[keep].astype(np.float32)
                    kinds = tracked.class_id[keep].astype(np.int32)
                    rows.append((frame, Detections(boxes, tracked.confidence[keep].astype(np.float32), kinds, ids)))
        return as_mot(iter(rows))

    def search(sequences: Sequence[LabelledSequence], trials: int) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        best: dict[str, Any] = {}
        least = score_of([_measure(run, sequence, best) for sequence in sequences])
        for _ in range(trials):
            drawn = {name: _draw(about, rng) for name, about in kind.search_space.items()}
            score = score_of([_measure(run, sequence, drawn) for sequence in sequences])
            if score > least:
                best, least = drawn, score
        return best

    return run, search


def _draw(about: dict[str, Any], rng: np.random.Generator) -> float | int:
    low, high = about["range"]
    return int(rng.integers(low, high)) if about["type"] == "randint" else float(rng.uniform(low, high))
