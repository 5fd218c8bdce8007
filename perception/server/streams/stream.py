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
from dataclasses import replace
from typing import Any, Literal, Protocol

from perception.common.bounds import Bounds
from perception.errors import EngineError, PerceptionError, SourceError, StageError, UsageError
from perception.footage.recorder import FootageRecorder
from perception.model import Inference, Model
from perception.rules.settings import Rules
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import Metrics
from perception.server.options import Options
from perception.server.problems import Forbidden
from perception.server.rule_book import RuleBook
from perception.server.streams.capture import Capture, Clock
from perception.server.streams.intake import Intake
from perception.server.streams.pace import Pace
from perception.server.streams.statistics import StreamStatistics, legend
from perception.server.streams.subscription import Subscription
from perception.server.streams.timeouts import Timeouts
from perception.server.streams.views import PLAIN, Result, Views
from perception.sources.base import Source
from perception.sources.uri import redact_text
from perception.stages.factories import StageFactory
from perception.types import Event, Frame, Prediction, Reading, SourceInfo

log = logging.getLogger("perception")

State = Literal["connecting", "running", "stalled", "reconnecting", "paused", "ended", "failed"]

OVER: tuple[State, ...] = ("ended", "failed")
"""States that a stream does not leave."""

MAX_ABANDONED = 3
"""Connections stuck in a driver or a library, beyond which a stream fails instead of leaving another thread behind."""

LETTING_GO_S = 30.0
"""A stream that goes on after a pause waits so long at most for the connection that it had before to end."""

LATE = 10
"""After so many results in a row that came too late to be shown, a stream says so."""

WANTED_S = 3.0
"""After so long without a viewer or a question a stream infers no more than a frame every `RESTING_S`, or as often as
its viewers want one: the engine is for those who look. Its connection stays, so that the next viewer sees a picture at
once. A stream with stages of the operator's does not rest: they see every result."""

RESTING_S = 1.0

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
        fps, priority, paused: see `adjust`.

    Raises:
        UsageError: a stage refuses the model.

    Attributes:
        touched: by the clock, when somebody last took an interest.
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
    ) -> None:
        self.id = id
        self.name = name
        self._now = clock
        self.touched = clock()
        self.broadcasts: dict[Any, Any] = {}
        self.publication: Published | None = None
        self.reconnects = 0
        self.dropped = 0
        self.frames = 0
        self._connect = connect
        self._model = scheduler.model
        self._model_name = scheduler.name
        self._reconnect = reconnect
        self._loop = loop
        self._metrics = metrics or Metrics()
        self._timeouts = timeouts or Timeouts()
        self._bounds = bounds or Bounds()
        self._publish_event = publish
        self._footage = footage
        self._clock = Clock(clock)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._state: State = "connecting"
        self._message = ""
        self._capture: Capture | None = None
        self._abandoned: list[Capture] = []
        self._arrived = 0.0
        self._submitted = 0.0
        self._intake = Intake(scheduler, f"stream {id}", self._changed, self._drop)
        self._pace = Pace()
        self._paused = False
        self.adjust(fps, priority, paused)
        self._late = 0
        self._result: Result | None = None
        self._statistics = StreamStatistics(clock)
        self.rules = RuleBook(self._model.card) if rules is None else rules
        self._views = Views(self._model, stages, self.rules, f"stream {id}")
        self._subscriptions: set[Subscription] = set()
        self._interval_s = RESTING_S
        self._thread = threading.Thread(target=self._run, name=f"perception-stream {id}", daemon=True)
        self._thread.start()

    # What others ask.

    @property
    def state(self) -> State:
        """See `State`."""
        return self._state

    @property
    def over(self) -> bool:
        """True once nothing will come any more."""
        return self._state in OVER or self._closing.is_set()

    @property
    def alive(self) -> bool:
        """True while a thread of its or of its sources runs, so that it takes memory and time."""
        captures = [*self._abandoned, *([self._capture] if self._capture is not None else [])]
        return self._thread.is_alive() or any(capture.alive for capture in captures) or self._bounds.busy

    @property
    def viewers(self) -> int:
        """Number of those who watch, on the network or by a subscription of their own, a recording for one."""
        broadcasts = list(self.broadcasts.values())
        return len(self._subscriptions) - len(broadcasts) + sum(len(broadcast) for broadcast in broadcasts)

    @property
    def info(self) -> SourceInfo | None:
        """Properties of the source, or None before it was first open."""
        capture = self._capture
        return None if capture is None else capture.info

    @property
    def fps(self) -> float:
        """Results a second, measured; 0 before there were some."""
        return self._statistics.fps

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
        with self._changed:
            self._subscriptions.add(subscription)
            self._interval_s = min(self._interval_s, interval_s)
            self.touched = self._now()
        return subscription

    def newest(self) -> Prediction | None:
        """The newest result with usual options, or None before the first one."""
        result = self._result
        return None if result is None else self._views.plain(result)

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

    def adjust(self, fps: float | None, priority: float, paused: bool) -> None:
        """Go on in another way. What its rules have counted and its viewers stay.

        Args:
            fps: frames a second that are looked at; None: as many as there is time for.
            priority: turns of the engine for each one of a stream of priority 1, where there is no time for all.
            paused: its source is given back until it goes on.
        """
        with self._changed:
            self._pace.fps = fps
            self._intake.weight = priority
            self._paused = paused
            self._changed.notify_all()

    def status(self) -> dict[str, Any]:
        """Everything about it, for JSON; see `perception.server.routes.streams`."""
        newest = self.newest()
        p50, p95 = self._statistics.latency_ms
        frame = None if newest is None else newest.frame
        info = self.info
        return {
            "id": self.id,
            "name": self.name,
            "model": self._model_name,
            "state": self._state,
            "message": self._message,
            "rules": {r.name: dict(r.numbers) for r in (newest.readings or ())} if newest else {},
            "width": frame.width if frame else info.width if info else 0,
            "height": frame.height if frame else info.height if info else 0,
            "fps": round(self.fps, 2),
            "latency_ms": {"p50": round(p50, 2), "p95": round(p95, 2)},
            "frames": self.frames,
            "dropped": self.dropped,
            "reconnects": self.reconnects,
            "viewers": self.viewers,
            "engine": self._model.engine.description,
            "legend": legend(newest, self._model.card),
            "boxes": 0 if newest is None or newest.detections is None else len(newest.detections),
            "published": [] if self.publication is None else self.publication.status(),
            "age_s": round(self._now() - frame.arrived, 3) if frame else None,
        }

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

        def newer() -> bool:
            return closed() or self.over or (self._result is not None and self._result.number > number)

        with self._changed:
            self._changed.wait_for(newer, timeout)
            result = self._result
            return None if closed() or result is None or result.number <= number else result

    def leave(self, subscription: Subscription) -> None:
        """A subscription is closed."""
        self._views.leave(subscription.view)
        with self._changed:
            self._subscriptions.discard(subscription)
            self._interval_s = min((each.interval_s for each in self._subscriptions), default=RESTING_S)
            self.touched = self._now()
            self._changed.notify_all()

    # In the thread of the capture.

    @property
    def _wanted_interval_s(self) -> float:
        """Seconds between two results that somebody looks at."""
        if self._views.has_stages or self._arrived - self.touched <= WANTED_S:
            return 0.0
        return self._interval_s

    def _deliver(self, frame: Frame) -> None:
        self._arrived = self._now()
        if not self._pace.takes(frame.time):
            return
        if self._arrived - self._submitted < self._wanted_interval_s:
            return
        self._submitted = self._arrived
        self._intake.submit(frame)

    def _drop(self, count: int = 1) -> None:
        with self._changed:
            self.dropped += count
        self._metrics.dropped(count, "stream")

    # In the stream's own thread.

    def _run(self) -> None:
        failures = 0
        try:
            self._enter("paused" if self._paused else "connecting")
            while not self._closing.is_set():
                if self._paused:
                    self._enter("paused")
                    self._wait(lambda: not self._paused)
                    self._enter("connecting")
                    # Many cameras have one connection at a time, and what was being opened takes a while to end.
                    self._wait(lambda: self._paused or all(c.ended for c in self._abandoned), LETTING_GO_S)
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
                    self._enter("ended" if error is None else "failed", "" if error is None else error.message)
                    return
                failures = 1 if settled else failures + 1
                pause = self._timeouts.pause(failures)
                self._enter(
                    "reconnecting", f"{error.message if error else 'the source stopped'}; trying again in {pause:.1f} s"
                )
                self._wait(lambda: self._paused, pause)
        except Exception as error:
            log.exception("stream %s", self.id)
            self._enter("failed", redact_text(f"{type(error).__name__}: {error}"))
        finally:
            if self._footage is not None:
                self._footage.close()
            with self._changed:
                self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._closing.is_set(), timeout)

    def _follow_connection(self) -> tuple[PerceptionError | None, bool]:
        """Connect, and show what comes until it ends; the error that ended it, and whether it had lasted a while."""
        if len(self._abandoned) >= MAX_ABANDONED:
            return EngineError(
                f"gave up: {len(self._abandoned)} connections hang and cannot be closed", self.name
            ), False
        timeouts = self._timeouts
        began, self._arrived, lost = self._now(), 0.0, 0
        capture = Capture(self._connect, self._deliver, self._wake, self._clock, loop=self._loop, name=self.name)
        self._capture = capture
        try:
            while not self._closing.is_set() and not self._paused:
                inference = self._next_inference(capture)
                if inference is not None:
                    self._publish(inference)
                if capture.dropped > lost:
                    self._drop(capture.dropped - lost)
                    lost = capture.dropped
                now, arrived = self._now(), self._arrived
                settled = bool(arrived) and now - began > timeouts.settled
                if self._intake.errors >= ENGINE_ERRORS:
                    return self._intake.error, settled
                if self._stage_errors >= STAGE_ERRORS:
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
                    self._enter("stalled")
                else:
                    self._enter("running", self._complaint())
            return None, False
        finally:
            capture.stop()
            self._abandoned = [c for c in (*self._abandoned, capture) if c.alive]

    @property
    def _stage_errors(self) -> int:
        stages = self._views.stages
        return 0 if stages is None else stages.failures

    def _complaint(self) -> str:
        """One line on what is wrong though results come; mostly empty."""
        if self._late >= LATE:
            return f"results take longer than {self._timeouts.age:g} s and are not shown: this machine is too busy"
        problem = self._views.problem
        return f"{problem}; shown without stages" if problem else ""

    def _next_inference(self, capture: Capture) -> Inference | None:
        """The next result, or None where there is something else to see to, or nothing for a while."""
        errors = self._intake.errors
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._intake.ready
                    or capture.ended
                    or self._closing.is_set()
                    or self._paused
                    or self._intake.errors > errors
                ),
                min(0.25, self._timeouts.stall / 4),
            )
            return self._intake.take()

    def _publish(self, inference: Inference) -> None:
        arrived = inference.frame.arrived
        if self._now() - arrived > self._timeouts.age:
            self._late += 1
            self._drop()
            return
        self._late = 0
        result = Result(self.frames, inference)
        prediction = self._views.advance(result)
        self._metrics.frame_done(prediction, "stream")
        if self._footage is not None:
            prediction = self._footage(prediction)
        for event in prediction.events:
            self._metrics.event(event.kind)
            if self._publish_event is not None:
                self._publish_event(replace(event, source=self.name))
        with self._changed:
            self._result = result
            self.frames += 1
            self._statistics.add(self._now() - arrived)
            self._changed.notify_all()

    def _enter(self, state: State, message: str = "") -> None:
        if state == self._state and message == self._message:
            return
        if state == "running" and self._state == "reconnecting":
            self.reconnects += 1
            self._metrics.reconnected(self.id)
        if state in ("stalled", "reconnecting", "failed"):
            log.warning("stream %s: %s%s", self.id, state, f": {message}" if message else "")
        with self._changed:
            self._state, self._message = state, message
            self._changed.notify_all()
        self._metrics.stream_state(self.id, state)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
