"""Rate limits per client: what exceeds them waits, and what would wait too long is turned away.

Shares (`perception.server.edge.places`) limit how much a client has at once. Requests that are answered within a
millisecond hold nothing, yet a thousand of them per second occupy the event loop, which everybody waits for. So
refused requests and new connections have a rate, and all requests together a share of the loop's time; beyond it
answers are delayed (a tarpit), longer with each one that waits already.

Some seconds' worth is free. Pages that load, people who mistype and programs that poll never get that far.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from perception.server.edge.log_limit import LogLimit
from perception.server.edge.places import group_of
from perception.server.metrics import Metrics
from perception.server.settings import Limits

LONGEST_S = 2.5
"""Longest delay in seconds; whatever would have to wait longer is turned away. Less than a server takes to stop."""

BURST_S, TIME_BURST_S = 20.0, 5.0
"""Seconds' worth of refusals and connections, and of the event loop's time, that a client may have at once."""

PROBES_PER_S = 20.0
"""Rate of requests for the server's health and metrics, which no other requests delay."""

MOST = 10_000
"""Number of clients remembered; the one that was seen longest ago is dropped first."""

_log = logging.getLogger("perception")


class RateLimit:
    """A rate per client, as the generic cell rate algorithm (a leaky bucket) limits it. For one event loop.

    Args:
        per_s: amount per second, without limit where it is infinite.
        burst: amount that may come at once, and at least a single event's.
        clock: seconds, of any beginning.
    """

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / per_s
        self._burst = burst
        self._clock = clock
        self._due: OrderedDict[str, float] = OrderedDict()  # when the next event would be on time, steadily

    def wait(self, client: str, amount: float = 1.0) -> float | None:
        """Return what `take` would, and count nothing."""
        due = self._due.get(client)
        if due is None or not client or not self._interval:
            return 0.0
        wait = due - max(0.0, self._burst - amount) * self._interval - self._clock()
        return None if wait > LONGEST_S else max(0.0, wait)

    def take(self, client: str) -> float | None:
        """Count an event.

        Args:
            client: see `perception.server.edge.places.client_of`; empty where it is unknown, which nothing limits.

        Returns:
            the seconds that it must wait; None: too many wait already, and it does not count.
        """
        wait = self.wait(client)
        if wait is not None:
            self.add(client, 1.0)
        return wait

    def add(self, client: str, amount: float) -> None:
        """Count what was not asked for: it is done already, and makes what comes next wait."""
        if not client:
            return
        now = self._clock()
        self._due[client] = max(self._due.get(client, now), now) + amount * self._interval
        self._due.move_to_end(client)
        while len(self._due) > MOST:
            self._due.popitem(last=False)


class ClientRates:
    """The rates of each client of one server.

    Args:
        limits: of the server. Where one client may have everything (``share``), there is no limit.
        proxies: addresses and networks of reverse proxies, whose connections are those of many.
        metrics: told of what is delayed and turned away.
        clock: seconds, of any beginning.

    Attributes:
        time: processor time of the event loop, in seconds.
        refusals: rate of requests that were refused (4xx).
        probes: rate of requests for health and metrics.
    """

    def __init__(
        self,
        limits: Limits,
        proxies: Sequence[str] = (),
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        def limit(per_s: float, burst_s: float) -> RateLimit:
            return RateLimit(per_s if limits.share < 1 else float("inf"), per_s * burst_s, clock)

        self.time = limit(limits.share, TIME_BURST_S)
        self.refusals = limit(limits.refusals_per_s, BURST_S)
        self.probes = limit(PROBES_PER_S, BURST_S)
        self._connections = limit(limits.connections_per_s, BURST_S)
        self._proxies = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]
        self._metrics = metrics
        self._lines = LogLimit(clock)

    def connect(self, address: str) -> float | None:
        """Count a new connection, before anything is read from it.

        While the refused requests of a client are delayed, each connection counts as one of them: otherwise it would
        come back on another one.

        Args:
            address: of the other end; empty where it has none.

        Returns:
            the seconds until it may be read from; None: it must be closed.
        """
        client = group_of(address)
        if self._is_proxy(client):
            return 0.0
        wait = self._connections.take(client)
        if wait is not None and self.refusals.wait(client) != 0.0:
            refused = self.refusals.take(client)
            wait = None if refused is None else max(wait, refused)
        self.tell(wait, client)
        return wait

    def tell(self, wait: float | None, client: str) -> None:
        """Tell metrics and log what became of a request or connection: see `RateLimit.take`."""
        if wait is None:
            left_out = self._lines.left_out("")
            if left_out is not None:
                more = f" ({left_out} more like it were left out)" if left_out else ""
                _log.warning("too many requests or connections from %s; some are turned away%s", client, more)
        if wait != 0.0 and self._metrics is not None:
            self._metrics.throttled("turned away" if wait is None else "delayed")

    def _is_proxy(self, client: str) -> bool:
        if not self._proxies:
            return False
        try:
            network = ipaddress.ip_network(client)
        except ValueError:
            return False
        return any(network.version == proxy.version and network.overlaps(proxy) for proxy in self._proxies)
