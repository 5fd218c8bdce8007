"""Accuracy of tracking against truth: HOTA, CLEAR and identity measures, as TrackEval defines them.

HOTA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021. CLEAR (MOTA):
Bernardin and Stiefelhagen, 2008. IDF1: Ristani et al., 2016. Boxes of truth count where their row says so and their
class is 1 (a person, in MOT17); results on people in vehicles, reflections and the like neither gain nor lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import UsageError
from perception.evaluation.tracking_kernels import EPS, clear_matches, hota_matches, identity_hits, on_neutral, overlaps
from perception.tracking.coco_tracks import read_tracks
from perception.tracking.mot_text import MotText

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

ALPHAS = np.arange(0.05, 0.99, 0.05)
COUNTED_CLASS = 1
NEUTRAL_CLASSES = (2, 7, 8, 12)
"""Of MOT17: a person on a vehicle, one that stands still behind glass, a distractor, a reflection."""
MATCH_OVERLAP = 0.5
"""Least IoU of a match for MOTA and IDF1. HOTA is the mean over nineteen of them."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackingResult:
    """Counts of one sequence, or the sum of several, and the measures that follow from them.

    Attributes:
        name: of the sequence.
        hits, missed, false: boxes at each of the `ALPHAS`, float64 ``[19]``.
        associated, recalled, precise: sums over the hits of their track's association accuracy, recall, precision.
        overlap: sum of the IoU of the hits.
        clear_hits, clear_missed, clear_false, switches: boxes, and changes of identity, of MOTA.
        id_hits, id_missed, id_false: boxes, of IDF1.
    """

    name: str
    hits: F64
    missed: F64
    false: F64
    associated: F64
    recalled: F64
    precise: F64
    overlap: F64
    clear_hits: int
    clear_missed: int
    clear_false: int
    switches: int
    id_hits: int
    id_missed: int
    id_false: int

    @property
    def deta(self) -> float:
        return float(np.mean(self._deta))

    @property
    def assa(self) -> float:
        return float(np.mean(self._assa))

    @property
    def loca(self) -> float:
        return float(np.mean(np.maximum(1e-10, self.overlap) / np.maximum(1e-10, self.hits)))

    @property
    def hota(self) -> float:
        return float(np.mean(np.sqrt(self._deta * self._assa)))

    @property
    def mota(self) -> float:
        if self.clear_hits + self.clear_false == 0 or self.clear_hits + self.clear_missed == 0:
            return 0.0
        boxes = self.clear_hits + self.clear_missed
        return (self.clear_hits - self.clear_false - self.switches) / max(1, boxes)

    @property
    def idf1(self) -> float:
        return self.id_hits / max(1.0, self.id_hits + 0.5 * self.id_false + 0.5 * self.id_missed)

    @property
    def _deta(self) -> F64:
        return np.asarray(self.hits / np.maximum(1, self.hits + self.missed + self.false))

    @property
    def _assa(self) -> F64:
        return np.asarray(self.associated / np.maximum(1, self.hits))

    def as_dict(self) -> dict[str, Any]:
        """The measures in 0..1 (MOTA may be below 0) and the counts, for a table or JSON."""
        return {
            "sequence": self.name,
            "HOTA": round(self.hota, 6),
            "DetA": round(self.deta, 6),
            "AssA": round(self.assa, 6),
            "LocA": round(self.loca, 6),
            "MOTA": round(self.mota, 6),
            "IDF1": round(self.idf1, 6),
            "switches": self.switches,
            "missed": self.clear_missed,
            "false": self.clear_false,
        }


def combine(results: Sequence[TrackingResult], name: str = "all") -> TrackingResult:
    """Several sequences as one: every box counts the same."""
    counts = [field for field in TrackingResult.__slots__ if field != "name"]
    return TrackingResult(name, **{field: sum(getattr(r, field) for r in results) for field in counts})


def evaluate_tracking(truth: str | Path, results: str | Path, name: str | None = None) -> TrackingResult:
    """Compare tracks with truth, both in files of MOT text, or of COCO (``.json``).

    Raises:
        UsageError: a file cannot be read, or an identity is twice in a frame.
    """
    return measure_tracking(read_tracks(truth), read_tracks(results), name or sequence_name(truth), str(results))


def sequence_name(path: str | Path) -> str:
    """Return the name of a sequence: that of its file, or of its folder where the file is ``gt.txt``."""
    parts = [part for part in (Path(path).stem, *reversed(Path(path).resolve().parts[:-1])) if part != "gt"]
    return parts[0]


def measure_tracking(truth: MotText, found: MotText, name: str = "", where: str = "") -> TrackingResult:
    """Compare tracks with truth.

    Args:
        truth, found: rows; those of ``found`` without an identity (-1) do not count.
        name: of the sequence.
        where: the file of the results, for messages.

    Raises:
        UsageError: an identity is twice in a frame.
    """
    counted = (truth.scores != 0) & (truth.classes == COUNTED_CLASS)
    neutral = np.isin(truth.classes, NEUTRAL_CLASSES)
    _check_unique(truth, counted, name)
    _check_unique(found, found.ids >= 0, where)
    last = max(truth.last_frame, found.last_frame)
    kept = found.ids >= 0
    if neutral.any():
        kept[kept] = ~on_neutral(
            truth.xyxy, _starts(truth.frames, last), neutral, found.xyxy[kept], _starts(found.frames[kept], last),
            MATCH_OVERLAP,
        )  # fmt: skip
    truth_ids, founds = _dense(truth.ids[counted]), _dense(found.ids[kept])
    truth_starts, found_starts = _starts(truth.frames[counted], last), _starts(found.frames[kept], last)
    iou = overlaps(truth.xyxy[counted], truth_starts, found.xyxy[kept], found_starts)
    flat = (truth_ids, truth_starts, founds, found_starts, iou)
    truth_count, found_count = (int(ids.max(initial=-1)) + 1 for ids in (truth_ids, founds))
    clear_hits, switches = clear_matches(*flat, truth_count, MATCH_OVERLAP)
    id_hits = identity_hits(*flat, truth_count, found_count, MATCH_OVERLAP)
    hits, missed, false, associated, recalled, precise, overlap = _hota(*flat, truth_count, found_count)
    return TrackingResult(
        name, hits, missed, false, associated, recalled, precise, overlap,
        clear_hits, len(truth_ids) - clear_hits, len(founds) - clear_hits, switches,
        id_hits, len(truth_ids) - id_hits, len(founds) - id_hits,
    )  # fmt: skip


def _check_unique(rows: MotText, counted: NDArray[np.bool_], where: str) -> None:
    order = np.lexsort((rows.ids[counted], rows.frames[counted]))
    frames, ids = rows.frames[counted][order], rows.ids[counted][order]
    twice = np.flatnonzero((frames[1:] == frames[:-1]) & (ids[1:] == ids[:-1]))
    if len(twice):
        raise UsageError(f"frame {frames[twice[0]]} has the identity {ids[twice[0]]} more than once", where)


def _starts(frames: I64, last: int) -> I64:
    """Where frames 1 to ``last`` begin among rows that are ordered by frame, and where the last one ends."""
    return np.searchsorted(frames, np.arange(1, last + 2)).astype(np.int64)


def _dense(ids: I64) -> I64:
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def _hota(
    truth: I64, truth_starts: I64, found: I64, found_starts: I64, iou: F64, truth_count: int, found_count: int
) -> tuple[F64, ...]:
    """The fields ``hits`` to ``overlap`` of `TrackingResult`."""
    truths, founds = np.bincount(truth, minlength=truth_count), np.bincount(found, minlength=found_count)
    a, b, overlap = hota_matches(truth, truth_starts, found, found_starts, iou, truths, founds)
    pair, index = np.unique(a * found_count + b, return_inverse=True)
    a, b = truths[pair // max(found_count, 1)], founds[pair % max(found_count, 1)]
    rows = []
    for alpha in ALPHAS:
        good = overlap >= alpha - EPS
        matches = np.bincount(index[good], minlength=len(pair)).astype(np.float64)
        hits = float(good.sum())
        squares = matches * matches
        rows.append(
            (
                hits,
                len(truth) - hits,
                len(found) - hits,
                (squares / np.maximum(1, a + b - matches)).sum(),
                (squares / np.maximum(1, a)).sum(),
                (squares / np.maximum(1, b)).sum(),
                overlap[good].sum(),
            )
        )
    return tuple(np.array(rows, np.float64).T)
