"""Delivery of events to their targets, away from the way of the frames."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from perception.common.text import counted
from perception.events.event import Event
from perception.events.outbox import Letter, Outbox
from perception.events.target import DeliveryError, Target

log = logging.getLogger("perception")

WAITING = 10_000
"""Events that may wait to be written into the outbox: what comes beyond replaces the oldest, and is counted."""

FIRST_PAUSE_S = 1.0
"""Pauses between attempts double from here to a target's longest, and are shortened at random by up to half."""

SILENT_S = 60.0
"""Seconds after a line in the log about a target in which no other problem of it is logged."""

REST_S = 1.0
"""Seconds after which an idle target is looked at again."""


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How a target does.

    Attributes:
        name: of the target.
        pending: events that it lacks.
        delivered, dropped, refused: totals since the outbox was made: accepted; given up because the outbox was full;
            of a kind that it never takes.
        problem: one line on why it takes none now, or nothing.
    """

    name: str
    pending: int
    delivered: int
    dropped: int
    refused: int
    problem: str


class Delivery:
    """Delivers events to targets, each in a thread of its own, at least once and in order.

    An event is written into the outbox first and removed when its targets have accepted it, so nothing is lost where
    the process ends. A target that fails is tried again after a pause that grows.

    Args:
        outbox: where events wait; closed with this object. What is in it from before is delivered first.
        targets: closed with this object.

    Attributes:
        lost: events that came faster than they could be written into the outbox.

    Example:
        >>> with Delivery(Outbox(path), [Webhook("https://example.org/hook")]) as delivery:
        ...     delivery.publish(event)
    """

    def __init__(self, outbox: Outbox, targets: Sequence[Target]) -> None:
        self.lost = 0
        self._outbox = outbox
        self._names = [target.name for target in targets]
        self._waiting: deque[Event] = deque()
        self._writing = False
        self._changed = threading.Condition()
        self._written = threading.Event()
        self._ending = threading.Event()
        self._deadline = float("inf")
        self._lanes = [_Lane(target, outbox, self._ending, self) for target in targets]
        self._writer = threading.Thread(target=self._write, name="perception-events", daemon=True)
        self._closed = False
        for thread in (self._writer, *(lane.thread for lane in self._lanes)):
            thread.start()

    def publish(self, event: Event) -> None:
        """Take an event. Returns at once: nothing here waits for a disk or a network."""
        with self._changed:
            if len(self._waiting) >= WAITING:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(event)
            self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was published is in the outbox; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._writing), timeout)

    @property
    def status(self) -> list[TargetStatus]:
        """How each target does."""
        return [
            TargetStatus(
                lane.name, self._outbox.pending(lane.name), problem=lane.problem, **self._outbox.counters(lane.name)
            )
            for lane in self._lanes
        ]

    @property
    def time_left(self) -> float:
        """Seconds that are left for what must be delivered before the end."""
        return self._deadline - time.monotonic()

    def close(self, timeout: float = 10.0) -> dict[str, int]:
        """Deliver what is left, and end. What cannot be delivered stays in the outbox. Safe to call twice.

        Args:
            timeout: seconds in which targets may take what is left.

        Returns:
            events that are left, by target.
        """
        if self._closed:
            return {}
        self._closed = True
        self._deadline = time.monotonic() + timeout
        self._ending.set()
        with self._changed:
            self._changed.notify_all()
        self._writer.join()
        for lane in self._lanes:
            lane.woken.set()
        for lane in self._lanes:
            lane.thread.join(max(self.time_left, 0.0) + 1.0)
        left = {name: self._outbox.pending(name) for name in self._names}
        for name, number in left.items():
            if number:
                log.warning(
                    "%s: %s left in %s, sent at the next start", name, counted(number, "event"), self._outbox.path
                )
        self._outbox.close()
        return {name: number for name, number in left.items() if number}

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending.is_set())
                events = list(self._waiting)
                self._waiting.clear()
                self._writing = bool(events)
            if not events:
                return
            self._outbox.add([Letter(event.id, event.to_json()) for event in events], self._names)
            with self._changed:
                self._writing = False
                self._changed.notify_all()
            for lane in self._lanes:
                lane.woken.set()


class _Lane:
    """Delivers to one target."""

    def __init__(self, target: Target, outbox: Outbox, ending: threading.Event, delivery: Delivery) -> None:
        self.name = target.name
        self.problem = ""
        self.woken = threading.Event()
        self._target = target
        self._outbox = outbox
        self._ending = ending
        self._delivery = delivery
        self._failures = 0
        self._told = False
        self._silent_until = 0.0
        self.thread = threading.Thread(target=self._run, name=f"perception-{target.name}", daemon=True)

    def _run(self) -> None:
        try:
            while not (self._ending.is_set() and self._delivery.time_left <= 0):
                self.woken.clear()
                letters = self._outbox.take(self.name, self._target.batch)
                if letters:
                    pause = self._offer(letters)
                    if pause and self._ending.is_set():
                        return
                    self._ending.wait(pause)
                elif self._ending.is_set():
                    return
                else:
                    self._rest()
        finally:
            self._target.close()

    def _offer(self, letters: Sequence[Letter]) -> float:
        """Offer events; return the seconds to wait before the next attempt."""
        accepted: list[str] = []
        problem, pause = "", 0.0
        try:
            self._target.deliver(letters, accepted.append)
        except DeliveryError as error:
            if error.refused is None:
                problem, pause = str(error), error.retry_after
            else:
                log.warning("%s: the event %s is refused and given up: %s", self.name, error.refused, error)
                self._outbox.done(self.name, [error.refused], "refused")
        except Exception as error:
            log.exception("%s", self.name)
            problem = type(error).__name__
        if accepted:
            self._outbox.done(self.name, accepted)
        if problem:
            self._failures = 1 if accepted else self._failures + 1
            grown = min(self._target.longest_pause_s, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 20))
            pause = max(pause, grown * random.uniform(0.5, 1.0))
        else:
            self._failures = 0
        self._tell(problem)
        return pause

    def _rest(self) -> None:
        try:
            self._target.rest(self.woken, REST_S)
        except DeliveryError as error:
            self._tell(str(error))
        else:
            self._tell("")

    def _tell(self, problem: str) -> None:
        """Log what is wrong when it begins, changes, and ends; not again and again where it comes and goes."""
        now = time.monotonic()
        if problem and problem != self.problem and now >= self._silent_until:
            log.warning("%s: %s; events wait in the outbox", self.name, problem)
            self._silent_until = now + SILENT_S
            self._told = True
        elif self._told and not problem:
            log.warning("%s: takes events again", self.name)
            self._told = False
        self.problem = problem
