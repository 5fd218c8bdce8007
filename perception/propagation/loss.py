"""What is lost where results are propagated, told from frames that the network saw as well."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ASSUMED, ASSUMED_WEIGHT = 0.005, 8.0
"""Loss with each frame further from the key frame until it is measured, and for how many comparisons that counts."""

_LEVEL = 1.96  # of a normal distribution, for 95%


@dataclass
class _Differences:
    """Comparisons of one kind, and the line through them: what two neighbouring frames differ by, and a slope."""

    gaps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def line(self) -> tuple[float, float, float]:
        """The difference of neighbouring frames, what each further frame adds, and the standard error of that."""
        gaps, values, weights = (np.array(x, np.float64) for x in (self.gaps, self.values, self.weights))
        # Weighted least squares, in which the slope has been seen to be what is assumed a few times before.
        scatter = np.stack((np.ones_like(gaps), gaps - 1))
        normal: NDArray[np.float64] = (scatter * weights) @ scatter.T + np.diag([1e-9, ASSUMED_WEIGHT])
        right = (scatter * weights) @ values + np.array([0.0, ASSUMED * ASSUMED_WEIGHT])
        jitter, slope = np.linalg.solve(normal, right)
        if len(gaps) < 3:
            return float(jitter), float(slope), float("nan")
        rest = values - jitter - slope * (gaps - 1)
        variance = float((weights * rest**2).sum() / max(weights.sum(), 1e-9)) * len(gaps) / (len(gaps) - 2)
        return float(jitter), float(slope), float(np.sqrt(variance * np.linalg.inv(normal)[1, 1]))


class PropagationLoss:
    """By what propagated results differ from the network's own, and how that grows with distance from the key frame.

    The network flickers: its results for two neighbouring frames differ by more than the picture does. What a frame
    next to its key frame differs by is taken for that; what those further away differ by more is the loss.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Differences] = {}
        self._frames = self._steps = 0

    def frame(self, gap: int) -> None:
        """Count a frame that is ``gap`` frames from its key frame; 0: one itself."""
        self._frames += 1
        self._steps += max(gap - 1, 0)

    def add(self, kind: str, gap: int, difference: float, weight: float = 1.0) -> None:
        """Take a comparison.

        Args:
            kind: ``pixels`` or ``boxes``.
            gap: frames from the key frame, at least 1.
            difference: part of the pixels, or of boxes, that are others, 0..1.
            weight: how much it tells, 1 as a rule.
        """
        kept = self._kinds.setdefault(kind, _Differences())
        kept.gaps.append(gap)
        kept.values.append(difference)
        kept.weights.append(weight)

    def longest(self, most: float, limit: int) -> int:
        """Most frames from one key frame to the next, up to ``limit``, at which the mean loss is at most ``most``."""
        slopes = [kept.line()[1] for kept in self._kinds.values()]
        slope = max(slopes, default=ASSUMED)
        # Of n frames one is a key frame and one next to it; the others lose 1, 2, ... n - 2 times the slope.
        return max((n for n in range(2, limit + 1) if slope * (n - 1) * (n - 2) / (2 * n) <= most), default=2)

    def as_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Return what was measured, by kind.

        Returns:
            ``loss``, the mean over all frames, 0..1; ``interval``, half of its 95% interval, None with fewer than three
            comparisons; ``jitter``, by what the network differs from itself; ``comparisons``.
        """
        steps = self._steps / max(self._frames, 1)
        found: dict[str, dict[str, float | int | None]] = {}
        for kind, kept in self._kinds.items():
            jitter, slope, error = kept.line()
            found[kind] = {
                "loss": max(slope, 0.0) * steps,
                "interval": None if np.isnan(error) else _LEVEL * error * steps,
                "jitter": jitter,
                "comparisons": len(kept.gaps),
            }
        return found
