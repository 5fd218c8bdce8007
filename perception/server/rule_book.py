"""The rules of one live source: those of the operator, and those that clients draw and change while it runs.

book = RuleBook(card, fixed=read_rules("gate-rules.yaml"))
stages = book.stages(operator_stages)        # for a chain; its rules follow the book
book.draw(make_rules({"lines": [...]}))      # the next prediction goes by these
book.stages(operator_stages)                 # others where lines are the first: they need tracking
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from perception.card import ModelCard
from perception.rules.settings import MOST_RULES, RuleError, Rules
from perception.server.options import TRACK
from perception.stages.factories import StageFactory, find_stage
from perception.stages.rules import RulesStage
from perception.types import Prediction


class RuleBook:
    """Rules of one source under one model. The stages that it makes follow its changes; safe to use from any thread.

    Args:
        card: of the model.
        fixed: the operator's, which no client changes.
        drawn: by clients. Those for which the model does not give what they look at are left out.
        deliver: whether events of drawn rules go where those of fixed ones go.

    Raises:
        RuleError: the model does not give what a fixed rule looks at.
    """

    def __init__(
        self, card: ModelCard, fixed: Rules | None = None, drawn: Rules | None = None, *, deliver: bool = True
    ) -> None:
        self.fixed = Rules() if fixed is None else fixed
        self.fixed.check(card)
        self._deliver = deliver
        self._card = card
        self._track: StageFactory | None = None
        self._follow = StageFactory("rules", lambda card: _FollowingStage(card, self))
        self._page = _Page()
        self.draw(Rules() if drawn is None else drawn)

    @property
    def drawn(self) -> Rules:
        """What clients have drawn, with those rules that are left out."""
        return self._page.drawn

    @property
    def rules(self) -> Rules:
        """All rules that are applied: the operator's first."""
        return self._page.rules

    @property
    def faults(self) -> dict[str, str]:
        """Why drawn rules are left out, by name, in one line each."""
        return self._page.faults

    @property
    def version(self) -> str:
        """Of what clients have drawn: another one after each change of it."""
        text = json.dumps(self.drawn.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def draw(self, drawn: Rules) -> None:
        """Replace what clients have drawn; it holds from the next prediction on."""
        fit, faults = self._fitting(drawn)
        silent = frozenset() if self._deliver else frozenset(rule.name for rule in fit)
        self._page = _Page(drawn, self.fixed + fit, {fault.rule or "": fault.message for fault in faults}, silent)

    def fix(self, fixed: Rules) -> None:
        """Replace the operator's; it holds from the next prediction on.

        Raises:
            RuleError: the model does not give what one of them looks at.
        """
        fixed.check(self._card)
        self.fixed = fixed
        self.draw(self.drawn)

    def check(self, drawn: Rules) -> None:
        """Check what a client wants to draw. What is drawn already may stay, also where the model has changed since.

        Raises:
            RuleError: it does not fit the model, has a name of the operator's, or there would be too many rules.
        """
        for fault in self._fitting(drawn.without({rule.name for rule in self.drawn if rule in [*drawn]}))[1]:
            raise fault
        if len(self.fixed) + len(drawn) > MOST_RULES:
            raise RuleError(f"there are {len(drawn)} rules; {MOST_RULES - len(self.fixed)} can be drawn")

    def _fitting(self, drawn: Rules) -> tuple[Rules, list[RuleError]]:
        taken = {rule.name for rule in self.fixed}
        room = MOST_RULES - len(self.fixed)
        faults = []
        for number, rule in enumerate(drawn):
            if rule.name in taken:
                faults.append(RuleError(f"two rules are called {rule.name!r}; one is the operator's", rule=rule.name))
            elif number >= room:
                faults.append(RuleError(f"{rule.name!r} is one rule too many; {room} can be drawn", rule=rule.name))
        fit, others = drawn.without({fault.rule for fault in faults}).fitting(self._card)
        return fit, [*faults, *others]

    def stages(self, before: Sequence[StageFactory]) -> list[StageFactory]:
        """The stages of a chain: those ``before``, then the rules, with tracking in front of all where they need it."""
        tracked = not self.rules.of_boxes or any(stage.name == TRACK for stage in before)
        if not tracked and self._track is None:
            self._track = find_stage(TRACK)
        return [*([self._track] if self._track is not None and not tracked else []), *before, self._follow]


@dataclass(frozen=True)
class _Page:
    """What a book says at one time; ``silent`` are the names of rules whose events go nowhere."""

    drawn: Rules = field(default_factory=Rules)
    rules: Rules = field(default_factory=Rules)
    faults: dict[str, str] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()


class _FollowingStage:
    """Applies the rules that a book has when a prediction comes."""

    def __init__(self, card: ModelCard, book: RuleBook) -> None:
        self._book = book
        self._page = book._page
        self._stage = RulesStage(card, self._page.rules)
        self._tracked = self._page.rules.of_boxes  # or the chain would not be right

    def __call__(self, prediction: Prediction) -> Prediction:
        """Apply them. Events of rules whose events go nowhere are left out."""
        page = self._book._page
        rules, found = page.rules, prediction.detections
        if not self._tracked and rules.of_boxes and found is not None and found.track_ids is None and len(found):
            return prediction  # lines have come; a chain that tracks is being made
        if page is not self._page:
            self._stage.change(rules)
            self._page = page
        if not len(rules):
            return prediction
        made = self._stage(prediction)
        before = len(prediction.events)
        if not page.silent or len(made.events) == before:
            return made
        told = [event for event in made.events[before:] if event.rule not in page.silent]
        return replace(made, events=(*prediction.events, *told))
