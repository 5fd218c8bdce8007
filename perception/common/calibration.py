"""What makes a network's numbers mean something: how sure it is where it is right, and chances of boxes."""

from __future__ import annotations

import math
from itertools import pairwise

from pydantic import Field, FiniteFloat, field_validator, model_validator

from perception.common.strict import Strict

HIGHEST_LOGIT = 3e38
"""No logit is as high."""


class UnknownScale(Strict):
    """How sure the network is where it is right: the floor under the logits that makes the rest unknown.

    Attributes:
        id: of unknown pixels in masks, after those of the classes.
        logits: the best logit of the pixels that are classified correctly, at evenly spaced quantiles from 0 to 1: a
            floor at quantile ``q`` makes the part ``q`` of them unknown.
        calibrated_on: the sets that it was measured on.
    """

    id: int = Field(ge=1, le=255)
    logits: list[FiniteFloat] = Field(min_length=2)
    calibrated_on: list[str] = Field(default=[])

    @field_validator("logits")
    @classmethod
    def _logits_rise(cls, logits: list[float]) -> list[float]:
        if any(b < a for a, b in pairwise(logits)):
            raise ValueError("logits must not fall")
        return logits

    def floor(self, loss: float) -> float | None:
        """Return the logit below which a pixel is unknown, or None where none is.

        Args:
            loss: part of the correct pixels that may become unknown, 0 to 1; 1 leaves no pixel a class.
        """
        if loss <= 0:
            return None
        if loss >= 1:
            return HIGHEST_LOGIT
        at = loss * (len(self.logits) - 1)
        below = int(at)
        return self.logits[below] + (at - below) * (self.logits[below + 1] - self.logits[below])


class ScoreCalibration(Strict):
    """What makes a score the chance that its box is right (Platt scaling): ``sigmoid(logit(s) / temperature + bias)``.

    A box is right that overlaps an object of its class by at least half (IoU).

    Attributes:
        temperature, bias: the two parameters.
        bend: a score of the graph from which on the logit rises by ``upper_temperature`` instead; None for one line.
        upper_temperature: goes with ``bend``.
        calibrated_on: the sets that they were fitted on.
    """

    temperature: float = Field(gt=0, le=100, allow_inf_nan=False)
    bias: float = Field(default=0.0, ge=-100, le=100)
    bend: float | None = Field(default=None, gt=0, lt=1)
    upper_temperature: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    calibrated_on: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _bend_is_whole(self) -> ScoreCalibration:
        if (self.bend is None) != (self.upper_temperature is None):
            raise ValueError("bend and upper_temperature go together")
        return self

    def calibrated(self, score: float) -> float:
        """Return the chance that belongs to a score of the graph, 0..1."""
        if not 0 < score < 1:
            return score
        logit = math.log(score / (1 - score))
        line = logit / self.temperature + self.bias
        if self.bend is not None and self.upper_temperature is not None and score > self.bend:
            beyond = logit - math.log(self.bend / (1 - self.bend))
            line += beyond / self.upper_temperature - beyond / self.temperature
        return 1 / (1 + math.exp(-line)) if line > -700 else 0.0

    def raw(self, chance: float) -> float:
        """Return the score of the graph that has that chance: the inverse of `calibrated`."""
        if not 0 < chance < 1:
            return chance
        line = math.log(chance / (1 - chance)) - self.bias
        logit = line * self.temperature
        if self.bend is not None and self.upper_temperature is not None:
            at = math.log(self.bend / (1 - self.bend))
            if logit > at:
                logit = at + (line - at / self.temperature) * self.upper_temperature
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
