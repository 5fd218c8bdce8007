"""MOT text: the plain form of boxes with identities, as the MOT Challenge has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import UsageError

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

LEAST_COLUMNS = 6


@dataclass(frozen=True, slots=True, eq=False)
class MotText:
    """The rows of a file, ordered by frame.

    Attributes:
        frames: int64 ``[N]``, from 1.
        ids: int64 ``[N]``; -1 where a box has no identity.
        boxes: float64 ``[N, 4]``: left, top, width, height, in pixels.
        scores: float64 ``[N]``; in truth: 0 where a box does not count. 1 where the file has no such column.
        classes: int64 ``[N]``; 1 where the file has no such column.
    """

    frames: I64
    ids: I64
    boxes: F64
    scores: F64
    classes: I64

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def last_frame(self) -> int:
        """The number of the last frame, 0 where there is none."""
        return int(self.frames[-1]) if len(self.frames) else 0

    def of_frame(self, frame: int) -> slice:
        """The rows of a frame."""
        first, end = np.searchsorted(self.frames, (frame, frame + 1))
        return slice(int(first), int(end))

    @property
    def xyxy(self) -> F64:
        """float64 ``[N, 4]``: left, top, right, bottom."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)


def read_mot(path: str | Path) -> MotText:
    """Read rows of ``frame, id, left, top, width, height[, score[, class[, ...]]]``, with commas or blanks between.

    Raises:
        UsageError: the file cannot be read, or a row is none; says which.
    """
    rows: list[list[float]] = []
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                words = line.replace(",", " ").replace(";", " ").split()
                if words:
                    rows.append(_row(words, number, path))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", path) from None
    except UnicodeDecodeError:
        raise UsageError("is not text; MOT text has rows of frame, id, left, top, width, height, score", path) from None
    table = np.array(rows, np.float64).reshape(-1, 8)
    table = table[np.argsort(table[:, 0], kind="stable")]
    whole = table[:, [0, 1, 7]].astype(np.int64)
    return MotText(whole[:, 0], whole[:, 1], np.ascontiguousarray(table[:, 2:6]), table[:, 6], whole[:, 2])


def _row(words: list[str], number: int, path: str | Path) -> list[float]:
    where = f"line {number}"
    if len(words) < LEAST_COLUMNS:
        raise UsageError(f"{where} has {len(words)} columns; at least frame, id, left, top, width, height belong", path)
    try:
        values = [float(word) for word in words[:8]]
    except ValueError:
        raise UsageError(f"{where} has something else than numbers: {' '.join(words[:8])[:80]}", path) from None
    if not np.isfinite(values).all() or max(map(abs, values)) > 1e15:
        raise UsageError(f"{where} has a number that is not finite or too large", path)
    if values[0] < 1 or values[0] != int(values[0]):
        raise UsageError(f"{where}: frames are counted from 1, not {words[0]}", path)
    if values[4] < 0 or values[5] < 0:
        raise UsageError(f"{where}: width and height must not be negative", path)
    return values + [1.0, 1.0][len(values) - 6 :]


def mot_lines(
    frame: int,
    ids: I64,
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    classes: NDArray[np.integer],
) -> str:
    """Rows of one frame, numbered from 1; boxes are xyxy, a class below 0 is unknown."""
    corners = np.asarray(boxes, np.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    rows = zip(ids.tolist(), corners.tolist(), sizes.tolist(), scores.tolist(), classes.tolist(), strict=True)
    return "".join(
        f"{frame},{i},{box[0]:.2f},{box[1]:.2f},{size[0]:.2f},{size[1]:.2f},{score:.4f},{c},-1,-1\n"
        for i, box, size, score, c in rows
    )
