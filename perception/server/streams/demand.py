"""Who looks at a stream, and which of its frames are looked at therefore."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from perception.server.settings import Decoding
from perception.server.streams.subscription import Subscription
from perception.sources.pace import Pace
from perception.sources.thinner import Spacing, Thinner

WANTED_S = 3.0
"""After so long without a viewer or a question a stream infers no more than a frame every `RESTING_S`, or as often as
its viewers want one: the engine is for those who look. Its connection stays, so that the next viewer sees a picture at
once. A stream with stages of the operator's does not rest: they see every result."""

RESTING_S = 1.0


class Demand:
    """How often results of a stream are wanted. Frames come in one thread; all else may come from any.

    Args:
        clock: seconds.

    Attributes:
        touched: by the clock, when somebody last took an interest.
        fps: frames a second that are looked at; None: as many as there is time for.
        decode: which frames of a network stream are decoded, see `perception.server.settings.NamedSource`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        self.touched = clock()
        self.decode: Decoding = "needed"
        self._pace = Pace()
        self._thins = False
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self._interval_s = RESTING_S
        self._taken = -math.inf

    def __len__(self) -> int:
        """Number of subscriptions."""
        return len(self._subscriptions)

    @property
    def fps(self) -> float | None:
        return 1 / self._pace.step_s if self._pace.step_s else None

    @fps.setter
    def fps(self, value: float | None) -> None:
        self._pace.step_s = 1 / value if value else 0.0

    def join(self, subscription: Subscription) -> None:
        """Somebody watches."""
        with self._lock:
            self._subscriptions.add(subscription)
            self._interval_s = min(self._interval_s, subscription.interval_s)
            self.touched = self._now()

    def leave(self, subscription: Subscription) -> None:
        """Somebody watches no more."""
        with self._lock:
            self._subscriptions.discard(subscription)
            self._interval_s = min((each.interval_s for each in self._subscriptions), default=RESTING_S)
            self.touched = self._now()

    def ask(self, thinner: Thinner | None, enough_s: float, always: bool) -> bool:
        """Ask a source for the frames that are wanted, where it can leave others out before they are decoded.

        Args:
            thinner: of the source, or None.
            enough_s: seconds between two frames beyond which the engine has no time for more.
            always: results are wanted also where nobody watches.

        Returns:
            whether as many are wanted as the engine has time for.
        """
        rests = not always and self._now() - self.touched > WANTED_S
        least = max(self._pace.step_s, self._interval_s if rests else 0.0)
        self._thins = thinner is not None and self.decode == "needed"
        if thinner is not None:
            thinner.spacing = Spacing(least, enough_s) if self._thins else Spacing()
        return least <= enough_s

    def takes(self, time: float, arrived: float, always: bool) -> bool:
        """Whether a frame is one of those that are looked at. They are asked about in order.

        Args:
            time: of the frame, in seconds.
            arrived: when it came, by the clock.
            always: results are wanted also where nobody watches.
        """
        if self._thins:  # the source has chosen it
            return True
        if not self._pace.takes(time):
            return False
        rests = not always and arrived - self.touched > WANTED_S
        if rests and arrived - self._taken < self._interval_s:
            return False
        self._taken = arrived
        return True
