"""Server-side sources: one capture and one inference each, whatever the number of viewers.

stream = hub.open("street")                       # a name that the operator gave, or an allowed URL
with stream.subscribe(Options(opacity=0.4)) as viewer:
    while not viewer.over:
        prediction = viewer.next(timeout=1.0)     # the newest, with its annotated picture; None: nothing new
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from perception.common.bounds import Bounds
from perception.errors import EngineError, PerceptionError, SourceError, StageError, UsageError
from perception.footage.recorder import FootageRecorder
from perception.model import Model
from perception.rules.settings import Rules
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import Metrics
from perception.server.options import Options
from perception.server.problems import Forbidden
from perception.server.rule_book import RuleBook
from perception.server.settings import Decoding, Every
from perception.server.streams.capture import Capture
from perception.server.streams.connections import Connections
from perception.server.streams.demand import Demand
from perception.server.streams.intake import Intake
from perception.server.streams.propagation import Propagation
from perception.server.streams.results import Results
from perception.server.streams.state import State, StreamState
from perception.server.streams.subscription import Subscription
from perception.server.streams.timeouts import Timeouts
from perception.server.streams.views import PLAIN, Result, Views
from perception.sources.base import Source
from perception.sources.uri import redact_text
from perception.stages.factories import StageFactory
from perception.types import Event, Frame, Prediction, Reading, SourceInfo

log = logging.getLogger("perception")

LETTING_GO_S = 30.0
"""A stream that goes on after a pause waits so long at most for the connection that it had before to end."""

ENGINE_ERRORS = 5
"""A stream fails after so many frames in a row that the engine failed on."""

STAGE_ERRORS = 100
"""A stream fails after so many results in a row that a stage of the operator's failed on."""


class Published(Protocol):
    """The side of a publication that its stream knows."""

    def status(self) -> list[dict[str, Any]]:
        """How each of its targets does, for JSON."""

    def close(self) -> None:
        """End it, once what is left has been sent."""


class Stream:
    """One server-side source that is captured and inferred once, and connected anew when it is lost.

    Args:
        id: what routes call it.
        name: what people call it; no secrets in it.
        connect: opens the source. Called for each connection, so it may check anew what it opens.
        scheduler: runs the model.
        reconnect: connect anew after an error or an end, as for cameras; else these are the end.
        loop: play a source that is not live again and again.
        metrics: counters of the server, under ``id``.
        timeouts: see `Timeouts`.
        stages: of the operator; each set of detection options that somebody watches has them with state of its own,
            and so have the plain ones, which see every result, watched or not.
        rules: of the source; None: none yet.
        bounds: what ``connect`` holds its sources to; cancelled when the stream is closed.
        publish: is given each event of the plain interpretation, under the stream's name; must not wait.
        footage: gives these events their clips and snapshots; closed with the stream.
        clock: seconds, by which it plays files and tells that a source is silent, or nobody watches.
        fps, priority, paused, decode, every: see `adjust`.

    Raises:
        UsageError: a stage refuses the model.

    Attributes:
        rules: of the source; they are changed by `draw`.
        broadcasts: what runs for its viewers on the network, see `perception.server.viewers.broadcast`.
        publication: where the operator has it published, see `perception.server.viewers.publication`; None: nowhere.
    """

    def __init__(
        self,
        id: str,
        name: str,
        connect: Callable[[], Source],
        scheduler: Scheduler,
        *,
        reconnect: bool = True,
        loop: bool = False,
        metrics: Metrics | None = None,
        timeouts: Timeouts | None = None,
        stages: Sequence[StageFactory] = (),
        rules: RuleBook | None = None,
        bounds: Bounds | None = None,
        publish: Callable[[Event], None] | None = None,
        footage: FootageRecorder | None = None,
        clock: Callable[[], float] = time.monotonic,
        fps: float | None = None,
        priority: float = 1.0,
        paused: bool = False,
        decode: Decoding = "needed",
        every: Every = 1,
    ) -> None:
        self.id = id
        self.name = name
        self._now = clock
        self.broadcasts: dict[Any, Any] = {}
        self.publication: Published | None = None
        self.dropped = 0
        self._model = scheduler.model
        self._model_name = scheduler.name
        self._reconnect = reconnect
        self._metrics = metrics or Metrics()
        self._timeouts = timeouts or Timeouts()
        self._bounds = bounds or Bounds()
        self._footage = footage
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._state = StreamState(id, self._metrics, self._changed)
        self._connections = Connections(connect, self._deliver, self._look, clock, loop=loop, name=name)
        self._arrived = 0.0
        self._intake = Intake(scheduler, f"stream {id}", self._changed, self._drop, clock)
        self._demand = Demand(clock)
        self._share = scheduler.share
        self._age_s = self._timeouts.age
        self._paused = False
        self.rules = RuleBook(self._model.card) if rules is None else rules
        self._views = Views(self._model, stages, self.rules, f"stream {id}")
        self.adjust(fps, priority, paused, decode, every)
        self._results = Results(self._views, self._changed, clock, self._metrics, publish, footage, name)
        self._propagation = Propagation(self._intake, self._results)
        self._thread = threading.Thread(target=self._run, name=f"perception-stream {id}", daemon=True)
        self._thread.start()

    # What others ask.

    @property
    def state(self) -> State:
        """See `State`."""
        return self._state.name

    @property
    def over(self) -> bool:
        """True once nothing will come any more."""
        return self._state.over or self._closing.is_set()

    @property
    def alive(self) -> bool:
        """True while a thread of its or of its sources runs, so that it takes memory and time."""
        return self._thread.is_alive() or self._connections.alive or self._bounds.busy

    @property
    def viewers(self) -> int:
        """Number of those who watch, on the network or by a subscription of their own, a recording for one."""
        broadcasts = list(self.broadcasts.values())
        return len(self._demand) - len(broadcasts) + sum(len(broadcast) for broadcast in broadcasts)

    @property
    def touched(self) -> float:
        """By the clock, when somebody last took an interest."""
        return self._demand.touched

    def touch(self) -> None:
        """Somebody takes an interest."""
        self._demand.touched = self._now()

    @property
    def info(self) -> SourceInfo | None:
        """Properties of the source, or None before it was first open."""
        capture = self._connections.newest
        return None if capture is None else capture.info

    @property
    def fps(self) -> float:
        """Results a second, measured; 0 before there were some."""
        return self._results.statistics.fps

    @property
    def frames(self) -> int:
        """Results so far."""
        return self._results.count

    @property
    def reconnects(self) -> int:
        """How often it was lost and ran again."""
        return self._state.reconnects

    @property
    def model(self) -> Model:
        """The model that it runs on."""
        return self._model

    def subscribe(self, options: Options | None = None, interval_s: float = 0.0) -> Subscription:
        """A place to take results from; close it when done.

        Args:
            options: of what is given.
            interval_s: seconds between two results that are wanted; where nobody wants more, no more is inferred.

        Raises:
            UsageError: the options do not fit the model.
            Busy: it is being drawn with too many different options already.
        """
        subscription = Subscription(self, self._views.take(options or PLAIN), interval_s)
        self._demand.join(subscription)
        self._look()
        return subscription

    def newest(self) -> Prediction | None:
        """The newest result with usual options, or None before the first one."""
        return self._results.newest

    @property
    def readings(self) -> Sequence[Reading]:
        """What each rule says at the newest result; nothing where there are none."""
        newest = self.newest()
        return () if newest is None else newest.readings or ()

    def draw(self, drawn: Rules) -> None:
        """Replace the rules that clients have drawn, for all its viewers."""
        self.rules.draw(drawn)
        self._views.rules_changed()

    def fix(self, fixed: Rules) -> None:
        """Replace the operator's rules.

        Raises:
            RuleError: the model does not give what one of them looks at.
        """
        self.rules.fix(fixed)
        self._views.rules_changed()

    def adjust(
        self, fps: float | None, priority: float, paused: bool, decode: Decoding = "needed", every: Every = 1
    ) -> None:
        """Go on in another way. What its rules have counted and its viewers stay.

        Args:
            fps: frames a second that are looked at; None: as many as there is time for.
            priority: turns of the engine for each one of a stream of priority 1, where there is no time for all.
            paused: its source is given back until it goes on.
            decode: which frames of a network stream: those that are ``needed`` for the ones that are looked at, or
                ``all``.
            every: ``auto``: frames that the network has no time for get its results of earlier ones; 1: they are
                dropped.
        """
        with self._changed:
            self._demand.fps = fps
            self._intake.weight = priority
            self._paused = paused
            self._demand.decode = decode
            self._intake.carries = every == "auto"
        self._look()

    def status(self) -> dict[str, Any]:
        """Everything about it, for JSON; see `perception.server.routes.streams`."""
        newest = self.newest()
        decoding, decoded = self._connections.decoding
        frame = None if newest is None else newest.frame
        info = self.info
        return {
            "id": self.id,
            "name": self.name,
            "model": self._model_name,
            "state": self._state.name,
            "message": self._state.message,
            "width": frame.width if frame else info.width if info else 0,
            "height": frame.height if frame else info.height if info else 0,
            "dropped": self.dropped,
            "reconnects": self.reconnects,
            "viewers": self.viewers,
            "engine": self._model.engine.description,
            "decoding": decoding,
            "decoded": round(decoded, 3),
            "published": [] if self.publication is None else self.publication.status(),
        } | self._results.status(self._model.card)

    def close(self, wait: bool = True) -> None:
        """End it for all its viewers. Safe to call twice and from any thread.

        Args:
            wait: until its source is given back, or is known to hang.
        """
        self._closing.set()
        self._bounds.cancel()
        self._wake()
        if wait and self._thread is not threading.current_thread():
            self._thread.join()

    # For subscriptions.

    def newer_than(self, number: int, timeout: float | None, closed: Callable[[], bool]) -> Result | None:
        """The newest result if its number is above ``number``, waiting for one; None once ``closed`` or too late."""
        result = self._results.newer_than(number, timeout, lambda: closed() or self.over)
        return None if closed() else result

    def leave(self, subscription: Subscription) -> None:
        """A subscription is closed."""
        self._views.leave(subscription.view)
        self._demand.leave(subscription)
        self._look()

    def _look(self) -> None:
        """Something has changed that decides which frames are wanted, or what there is to do."""
        if (capture := self._connections.newest) is not None:
            self._space(capture)
        self._wake()

    def _space(self, capture: Capture) -> None:
        # Where results are carried, frames are wanted as they come, whether there is a turn for them or not.
        enough = 0.0 if self._intake.carries else self._share.interval_s / self._intake.weight
        self._age_s = max(self._timeouts.age, 2 * enough)  # one that had to wait is shown for as long as it waited
        self._intake.eager = self._demand.ask(capture.thinner, enough, always=self._views.has_stages)

    # In the thread of the capture.

    def _deliver(self, frame: Frame) -> None:
        self._arrived = self._now()
        if self._demand.takes(frame.time, self._arrived, always=self._views.has_stages):
            self._intake.submit(frame)

    def _drop(self, count: int = 1) -> None:
        with self._changed:
            self.dropped += count
        self._metrics.dropped(count, "stream")

    # In the stream's own thread.

    def _run(self) -> None:
        failures = 0
        try:
            self._state.enter("paused" if self._paused else "connecting")
            while not self._closing.is_set():
                if self._paused:
                    self._state.enter("paused")
                    self._wait(lambda: not self._paused)
                    self._state.enter("connecting")
                    # Many cameras have one connection at a time, and what was being opened takes a while to end.
                    self._wait(lambda: self._paused or self._connections.let_go, LETTING_GO_S)
                    failures = 0
                    continue
                error, settled = self._follow_connection()
                if self._closing.is_set():
                    return
                if self._paused:
                    continue
                info = self.info
                finite = info is not None and not info.live and error is None
                if not self._reconnect or finite or isinstance(error, (UsageError, EngineError, StageError, Forbidden)):
                    self._state.enter("ended" if error is None else "failed", "" if error is None else error.message)
                    return
                failures = 1 if settled else failures + 1
                pause = self._timeouts.pause(failures)
                self._state.enter(
                    "reconnecting", f"{error.message if error else 'the source stopped'}; trying again in {pause:.1f} s"
                )
                self._wait(lambda: self._paused, pause)
        except Exception as error:
            log.exception("stream %s", self.id)
            self._state.enter("failed", redact_text(f"{type(error).__name__}: {error}"))
        finally:
            if self._footage is not None:
                self._footage.close()
            if self._closing.is_set():
                self._intake.forget()
                self._propagation.forget()
                self._results.forget()
            with self._changed:
                self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._closing.is_set(), timeout)

    def _follow_connection(self) -> tuple[PerceptionError | None, bool]:
        """Connect, and show what comes until it ends; the error that ended it, and whether it had lasted a while."""
        if hanging := self._connections.hanging:
            return EngineError(f"gave up: {hanging} connections hang and cannot be closed", self.name), False
        timeouts = self._timeouts
        patience = min(0.25, timeouts.stall / 4)
        began, self._arrived, lost, received = self._now(), 0.0, 0, 0
        capture = self._connections.open()
        try:
            while not self._closing.is_set() and not self._paused:
                taken = self._intake.next(lambda: capture.ended or self._closing.is_set() or self._paused, patience)
                self._propagation.show(*taken, self._age_s)
                self._space(capture)
                if capture.received > received:  # also what is not decoded tells that the source is there
                    received, self._arrived = capture.received, self._now()
                if capture.dropped > lost:
                    self._drop(capture.dropped - lost)
                    lost = capture.dropped
                now, arrived = self._now(), self._arrived
                settled = bool(arrived) and now - began > timeouts.settled
                if self._intake.errors >= ENGINE_ERRORS:
                    return self._intake.error, settled
                if self._views.failures >= STAGE_ERRORS:
                    return StageError(f"given up: {self._views.problem}"), settled
                if capture.ended:
                    return capture.error, settled
                if not arrived:
                    if now - began > timeouts.opening:
                        return SourceError(f"no picture within {timeouts.opening:g} s", self.name), False
                    continue
                silent = now - arrived
                # Local files are played by this machine's clock, and images may stand for long.
                watched = capture.info is not None and (capture.info.live or capture.info.kind == "stream")
                if watched and silent > timeouts.silence:
                    return SourceError(f"no picture for {timeouts.silence:g} s", self.name), settled
                if watched and silent > timeouts.stall:
                    self._state.enter("stalled")
                else:
                    self._state.enter("running", self._results.complaint(self._age_s))
            return None, False
        finally:
            self._connections.close(capture)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
