"""A budget that is taken in amounts, such as the pixels of all pictures in progress, and never exceeds a total.

Requests wait until there is enough, and clients take turns: none waits behind more than one request of each other
client. A part can be reserved for small requests, which overtake large ones as far as it goes: what takes a millisecond
does not wait for what takes seconds. Beyond it nobody is overtaken; large ones would otherwise wait forever.

    with await budget.take(width * height, client) as hold:
        future = pool.submit(decode, data)
        hold.until(future)                     # a thread goes on where the request that waits for it is given up
        image = await asyncio.wrap_future(future)
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from perception.server.edge.places import TOO_MANY_REQUESTS, share_of
from perception.server.problems import Busy, TooLarge


@dataclass(eq=False)
class _Waiting:
    cost: int
    client: str
    granted: Future[None] = field(default_factory=Future)


class Budget:
    """Budget of amounts in progress, with a fair queue. Safe to use from any thread and event loop.

    Args:
        total: the most that may be in progress at once.
        share: part of it, and of the queue, that one client may hold; more only for a single piece.
        waiting: length of the queue.
        timeout_s: seconds after which a waiting request is refused.
        reserve: part of it that is left for small pieces, by all large ones but a single one that needs it.
        small: the most that a small piece takes.
        unit: of what, for messages.
        what: what the pieces are, for messages.
    """

    def __init__(
        self,
        total: int,
        share: float,
        waiting: int,
        timeout_s: float,
        reserve: float = 0.0,
        small: int = 0,
        unit: str = "pixels",
        what: str = "pictures",
    ) -> None:
        self.total = total
        self._reserve, self._small = int(total * reserve), small
        self._most = share_of(total, share)
        self._places = waiting
        self._most_waiting = share_of(waiting, share)
        self._timeout_s = timeout_s
        self._unit, self._what = unit, what
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._in_progress = self._large = self._peak = 0
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()  # by client, in the order of their turns

    @property
    def in_progress(self) -> int:
        """The amount in progress."""
        return self._in_progress

    @property
    def peak(self) -> int:
        """The largest amount that was ever in progress."""
        return self._peak

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        with self._lock:
            return sum(map(len, self._queues.values()))

    def try_take(self, cost: int, client: str = "") -> Hold | None:
        """Take an amount if that is possible at once, without overtaking anybody; see `take`."""
        turn = self._queue(cost, client)
        with self._lock:
            if not turn.granted.done():
                self._remove(turn)
                return None
        return Hold(self, turn.cost, client)

    async def take(self, cost: int, client: str = "") -> Hold:
        """Take an amount; wait until there is enough.

        Args:
            cost: how much, at least 1.
            client: whose turn it takes, see `perception.server.edge.places.client_of`.

        Returns:
            a context manager that gives it back: ``with await budget.take(...)``.

        Raises:
            TooLarge: more than there is in total.
            Busy: too many wait already (503; 429 where they are this client's), or it took too long (503).
        """
        turn = self._queue(cost, client)
        with self._lock:
            if turn.granted.done():
                return Hold(self, turn.cost, client)
            try:
                self._check_room(client)
            except Busy:
                self._remove(turn)
                raise
        try:
            # Shielded: what is granted is not cancelled, so that it can be told whether it has to be given back.
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(turn.granted)), self._timeout_s)
        except asyncio.TimeoutError:
            with self._lock:
                if not turn.granted.done():
                    self._remove(turn)
                    raise Busy(f"the server is busy with other {self._what}; try again shortly", 2.0) from None
        except BaseException:
            with self._lock:
                if not turn.granted.done():
                    self._remove(turn)
                elif turn.granted.exception() is None:
                    self._release(turn.cost, client)
            raise
        return Hold(self, turn.cost, client)

    def _queue(self, cost: int, client: str) -> _Waiting:
        if cost > self.total:
            raise TooLarge(f"{cost} {self._unit} are more than the {self.total} that this server processes at once")
        turn = _Waiting(max(cost, 1), client)
        with self._lock:
            self._queues.setdefault(client, deque()).append(turn)
            self._grant()
        return turn

    def _check_room(self, client: str) -> None:
        """Refuse a request that is in the queue already, if the queue is too long."""
        if client and len(self._queues[client]) > self._most_waiting < self._places:
            raise Busy(
                f"too many waiting {self._what} from your address; the limit is {self._most_waiting}",
                2.0,
                TOO_MANY_REQUESTS,
            )
        if sum(map(len, self._queues.values())) > self._places and not self._make_room(client):
            raise Busy(f"the server is busy with other {self._what}; try again shortly", 2.0)

    def _make_room(self, client: str) -> bool:
        """Refuse the newest request of the client that has most waiting, if that is more than this one has."""
        greediest = max(self._queues, key=lambda name: len(self._queues[name]))
        if len(self._queues[greediest]) <= len(self._queues[client]):
            return False
        turn = self._queues[greediest][-1]
        self._remove(turn)
        turn.granted.set_exception(Busy(f"the server is busy with other {self._what}; try again shortly", 2.0))
        return True

    def _remove(self, turn: _Waiting) -> None:
        queue = self._queues[turn.client]
        queue.remove(turn)
        if not queue:
            del self._queues[turn.client]
        self._grant()  # who came behind may find room

    def _grant(self) -> None:
        """Serve waiting requests in turns, as far as the budget goes."""
        while (client := self._next()) is not None:
            queue = self._queues[client]
            turn = queue.popleft()
            self._held[client] += turn.cost
            self._in_progress += turn.cost
            self._large += turn.cost if turn.cost > self._small else 0
            self._peak = max(self._peak, self._in_progress)
            if queue:
                self._queues.move_to_end(client)
            else:
                del self._queues[client]
            turn.granted.set_result(None)

    def _next(self) -> str | None:
        """Find the client whose first request is served next."""
        room = self.total - self._in_progress
        small_room, large_waits = room, False
        for client, queue in self._queues.items():
            cost = queue[0].cost
            held = self._held.get(client, 0)
            if client and held and held + cost > self._most:
                continue  # it waits for itself, and others need not
            if cost <= self._small:
                return client if cost <= small_room else None
            if large_waits:
                continue
            if cost <= room and (not self._large or self._large + cost <= self.total - self._reserve):
                return client
            if cost > self.total - self._reserve:
                return None  # it needs what small ones would take meanwhile
            large_waits = True
            small_room = min(room, self._reserve - (self._in_progress - self._large))
        return None

    def _release(self, cost: int, client: str) -> None:
        self._in_progress -= cost
        self._large -= cost if cost > self._small else 0
        self._held[client] -= cost
        if not self._held[client]:
            del self._held[client]
        self._grant()


class Hold:
    """An amount that was taken; given back when it is left and all futures it holds for are done.

    Attributes:
        cost: how much.
    """

    def __init__(self, budget: Budget, cost: int, client: str) -> None:
        self._budget = budget
        self.cost = cost
        self._client = client
        self._reasons = 1

    def until(self, future: Future[Any]) -> None:
        """Also hold it until ``future`` is done, even if nobody waits for that any more."""
        with self._budget._lock:
            self._reasons += 1
        future.add_done_callback(lambda _: self.leave())

    def leave(self) -> None:
        """Give it back; call once, unless it is used as a context manager."""
        with self._budget._lock:
            self._reasons -= 1
            if not self._reasons:
                self._budget._release(self.cost, self._client)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
