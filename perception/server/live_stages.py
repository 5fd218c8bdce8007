"""The operator's stages on one live source, which goes on where a stage fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from perception.card import ModelCard
from perception.errors import PerceptionError
from perception.pipeline import StageChain
from perception.server.edge.log_limit import LogLimit
from perception.sources.uri import redact_text
from perception.stages.factories import StageFactory
from perception.types import Prediction

log = logging.getLogger("perception")

SETTLED = 25
"""After so many results in a row without a failure the last failure is no longer told."""


class LiveStages:
    """Applies stages to the results of one source; where one fails, the prediction is given without them.

    Args:
        card: of the model.
        stages: of the operator.
        name: of the source, for the log.

    Attributes:
        failures: results in a row that a stage failed on.
        problem: the last failure in one line; empty once it has been well for `SETTLED` results.

    Raises:
        UsageError: a stage refuses the model.
    """

    def __init__(self, card: ModelCard, stages: Sequence[StageFactory], name: str) -> None:
        self.failures = 0
        self.problem = ""
        self._chain = StageChain(card, stages)
        self._name = name
        self._lines = LogLimit()
        self._good = 0

    def apply(self, prediction: Prediction) -> Prediction:
        """Apply all stages; a prediction that one of them fails on is given as it came."""
        try:
            result = self._chain.apply(prediction)
        except PerceptionError as error:
            self._failed(error)
            return prediction
        if self.problem:
            self._good += 1
            self.failures = 0
            if self._good >= SETTLED:
                self.problem = ""
        return result

    def _failed(self, error: PerceptionError) -> None:
        self.failures += 1
        self._good = 0
        self.problem = redact_text(error.message)
        if self._lines.left_out("") is not None:
            log.warning("%s: %s; its results are shown without stages", self._name, self.problem)
            log.debug("stage", exc_info=error)
