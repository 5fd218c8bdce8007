"""From the results of a stream to what its viewers see: interpreted, through the stages, drawn; each once for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from perception.model import Inference, Model
from perception.pipeline import StageChain
from perception.server.live_stages import LiveStages
from perception.server.options import Options
from perception.server.problems import Busy
from perception.server.rule_book import RuleBook
from perception.stages.factories import StageFactory
from perception.types import Frame, Prediction

if TYPE_CHECKING:
    from perception.propagation.motion import Motion  # compiles its kernels

PLAIN = Options()
"""The options of a viewer who asks for nothing."""

MAX_VIEWS = 8
"""Sets of options that one stream is drawn with at once."""


class Carried(NamedTuple):
    """A frame that the network has not seen, and how the picture has moved since one that it has."""

    frame: Frame
    motion: Motion


class Result:
    """The network's outputs for one frame, and a number that counts results.

    Attributes:
        number: of the result.
        inference: what the network says.
        carried: the frame that the result is of, where that is a later one; else None.
    """

    __slots__ = ("carried", "inference", "number")

    def __init__(self, number: int, inference: Inference, carried: Carried | None = None) -> None:
        self.number = number
        self.inference = inference
        self.carried = carried

    @property
    def frame(self) -> Frame:
        """The frame that it is of."""
        return self.inference.frame if self.carried is None else self.carried.frame


class Interpretation:
    """Predictions under one set of detection options: of each result once, in order, through stages of their own."""

    def __init__(self, key: tuple[object, ...], model: Model, stages: LiveStages | None) -> None:
        self.key = key
        self.stages = stages
        self._model = model
        self._lock = threading.Lock()
        self._number = -1
        self._prediction: Prediction | None = None
        self._seen: tuple[Inference, Prediction] | None = None  # what later frames get

    def of(self, result: Result) -> tuple[int, Prediction]:
        """The number and prediction of a result, or of a newer one that somebody else has asked for meanwhile."""
        with self._lock:
            if self._prediction is None or self._number < result.number:
                prediction = self._interpreted(result)
                self._prediction = prediction if self.stages is None else self.stages.apply(prediction)
                self._number = result.number
            return self._number, self._prediction

    def forget(self) -> None:
        """Keep no picture."""
        with self._lock:
            self._prediction = self._seen = None

    def _interpreted(self, result: Result) -> Prediction:
        """What the network says, before all stages; carried to the frame that the result is of."""
        if self._seen is None or self._seen[0] is not result.inference:
            self._seen = result.inference, self._model.interpret(result.inference)
        if result.carried is None:
            return self._seen[1]
        started = time.perf_counter()
        carried = result.carried.motion.prediction(self._seen[1], result.carried.frame)
        return replace(carried, timings={"propagate": 1e3 * (time.perf_counter() - started)})


class RenderedView:
    """Drawn predictions under one set of options, made for the first one who asks and shared by all others."""

    def __init__(self, options: Options, interpretation: Interpretation, chain: StageChain) -> None:
        self.options = options
        self.interpretation = interpretation
        self.users = 0
        self._chain = chain
        self._lock = threading.Lock()
        self._number = -1
        self._prediction: Prediction | None = None

    def of(self, result: Result, picture: bool) -> tuple[int, Prediction]:
        """The number and prediction of a result, or of a newer one that somebody else has asked for meanwhile.

        Args:
            result: of the stream.
            picture: with its annotated picture.
        """
        with self._lock:
            if self._prediction is None or self._number < result.number:
                number, prediction = self.interpretation.of(result)
                self._prediction = self._chain.apply(prediction)
                self._number = number
            if picture and self._prediction.picture is None:
                self._prediction = self._chain.render(self._prediction)
            return self._number, self._prediction

    def forget(self) -> None:
        """Keep no picture."""
        with self._lock:
            self._prediction = None


class Views:
    """All views of one stream.

    The plain interpretation is always there. Those of other options come and go with the viewers who want them. Where
    the operator has set stages, each interpretation sees every result while it is there; else none is made unasked.

    Args:
        model: of the stream.
        stages: the operator's; each interpretation has them with state of its own.
        rules: of the source, which come after the stages.
        name: of the stream, for the log.

    Raises:
        UsageError: a stage refuses the model.
    """

    def __init__(self, model: Model, stages: Sequence[StageFactory], rules: RuleBook, name: str) -> None:
        self._model = model
        self._operator = stages
        self._rules = rules
        self._stages = self._rules.stages(self._operator)
        self._name = name
        self._changing = threading.Lock()
        self._views: dict[Options, RenderedView] = {}
        self._plain = self._interpretation(PLAIN)
        self._running: tuple[Interpretation, ...] = (self._plain,)

    @property
    def has_stages(self) -> bool:
        """True where every result goes through the operator's stages and the rules, watched or not."""
        return bool(self._operator) or len(self._rules.rules) > 0

    @property
    def failures(self) -> int:
        """Results in a row that a stage of the plain interpretation failed on: how it does is how the stream does."""
        stages = self._plain.stages
        return 0 if stages is None else stages.failures

    @property
    def problem(self) -> str:
        """The failure of a stage in one line; empty where all is well."""
        return next((i.stages.problem for i in self._running if i.stages is not None and i.stages.problem), "")

    def plain(self, result: Result) -> Prediction:
        """The prediction of a result under plain options."""
        return self._plain.of(result)[1]

    def advance(self, result: Result) -> Prediction:
        """Take the next result: all stages see it. The prediction under plain options."""
        for interpretation in self._running if self.has_stages else ():
            interpretation.of(result)
        return self.plain(result)

    def take(self, options: Options) -> RenderedView:
        """The view of some options, for one more user, who gives it back with `leave`.

        Raises:
            UsageError: the options do not fit the model.
            Busy: there are as many views as may be.
        """
        with self._changing:  # and not what advances: a view may take a while to make
            view = self._views.get(options)
            if view is None:
                if len(self._views) >= MAX_VIEWS:
                    raise Busy(f"this stream already has viewers with {MAX_VIEWS} different sets of options", 5.0, 429)
                view = self._views[options] = self._view(options)
                self._update()
            view.users += 1
            return view

    def leave(self, view: RenderedView) -> None:
        """One user fewer."""
        with self._changing:
            view.users -= 1
            if not view.users:
                del self._views[view.options]
                self._update()

    def forget(self) -> None:
        """Keep no pictures."""
        with self._changing:
            for interpretation in self._running:
                interpretation.forget()
            for view in self._views.values():
                view.forget()

    def rules_changed(self) -> None:
        """Follow the rules: what has to be tracked for them now, or no more, is interpreted anew."""
        with self._changing:
            self._stages = self._rules.stages(self._operator)
            self._plain = self._again(self._plain, PLAIN)
            made = {self._plain.key: self._plain}
            for view in self._views.values():
                interpretation = self._again(view.interpretation, view.options)
                view.interpretation = made.setdefault(interpretation.key, interpretation)
            self._update()

    def _again(self, interpretation: Interpretation, options: Options) -> Interpretation:
        key = options.interpretation(self._model.card, self._stages)
        return interpretation if interpretation.key == key else self._interpretation(options)

    def _view(self, options: Options) -> RenderedView:
        card = self._model.card
        key = options.interpretation(card, self._stages)
        interpretation = next((i for i in self._running if i.key == key), None)
        # What a view needs is not the operator's: it has no state, and runs only where somebody looks.
        chain = StageChain(card, options.view_stages(self._stages), options.annotator(card))
        return RenderedView(options, interpretation or self._interpretation(options), chain)

    def _interpretation(self, options: Options) -> Interpretation:
        card = self._model.card
        stages = options.stages(card, self._stages)
        return Interpretation(
            options.interpretation(card, self._stages),
            options.applied_to(self._model, self._stages),
            LiveStages(card, stages, self._name) if stages else None,
        )

    def _update(self) -> None:
        running = [self._plain, *(view.interpretation for view in self._views.values())]
        self._running = tuple(dict.fromkeys(running))
