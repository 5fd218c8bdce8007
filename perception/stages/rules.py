"""Rules as a step of the pipeline: lines that are crossed, zones that are entered, conditions on pixels."""

from __future__ import annotations

import time
from dataclasses import replace

from perception.card import ModelCard
from perception.rules.engine import RuleEngine
from perception.rules.settings import Rules
from perception.stages.factories import StageFactory
from perception.types import Prediction


class RulesStage:
    """Gives each prediction its ``readings``, and adds to its ``events``; behind a tracker where rules are about boxes.

    Each source needs a stage of its own.

    Args:
        card: of the model that predicts.
        rules: see `perception.rules.settings.read_rules`.

    Raises:
        UsageError: the model does not give what a rule looks at.

    Example:
        >>> stages = [TrackStage(model.card), RulesStage(model.card, read_rules("rules.yaml"))]
        >>> perception.run(source, model.with_options(tracking_options(model.card)), stages=stages, sinks=sinks)
    """

    def __init__(self, card: ModelCard, rules: Rules) -> None:
        self._engine = RuleEngine(rules, card)

    def change(self, rules: Rules) -> None:
        """Go on with other rules; those that stay the same keep what they know and have counted.

        Raises:
            UsageError: the model does not give what a rule looks at.
        """
        self._engine = self._engine.changed(rules)

    def __call__(self, prediction: Prediction) -> Prediction:
        """Apply the rules to the next frame.

        Raises:
            UsageError: the prediction lacks what they look at.
        """
        started = time.perf_counter()
        events, readings = self._engine.update(prediction)
        timings = {**prediction.timings, "rules": 1e3 * (time.perf_counter() - started)}
        return replace(prediction, readings=readings, events=(*prediction.events, *events), timings=timings)


def rules_factory(rules: Rules) -> StageFactory:
    """Return what makes a `RulesStage` for each source."""
    return StageFactory("rules", lambda card: RulesStage(card, rules))
