"""The frames that wait for one engine, by client: who is served next.

Clients take turns. One with a weight of 2 gets two turns for each one of a client with a weight of 1, wherever both
have frames waiting; none waits for ever. This is self-clocked fair queueing (Golestani, INFOCOM 1994) with frames that
are all of one length: the frame at the front of its client's own queue gets a tag, which is the tag of the frame that
was served last plus one over the client's weight, and the lowest tag is served first. Who was away has
saved nothing up, but one turn: who asks for no more than its share does not wait for a whole round of those who ask for
all they can get.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

_MOST_REMEMBERED = 1024


@dataclass(eq=False)
class Client(Generic[Item]):
    """Whose frames wait or are under way.

    Attributes:
        name: who it is.
        weight: turns for each one of a client of weight 1.
        waiting: frames, the oldest first.
        running: how many are under way.
    """

    name: str
    weight: float = 1.0
    waiting: deque[Item] = field(default_factory=deque)
    running: int = 0
    _tag: tuple[float, int, int] = (math.inf, 0, 0)


class FairQueue(Generic[Item]):
    """Clients with frames that wait or are under way. Not safe to use from several threads: its user has a lock."""

    def __init__(self) -> None:
        self._clients: dict[str, Client[Item]] = {}
        self._served = 0.0
        self._turns = 0
        self._last: dict[str, tuple[float, int]] = {}  # of the frames that clients had served last: tag, and which turn
        self._tagged = 0

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client[Item]]:
        return iter([*self._clients.values()])

    def get(self, name: str) -> Client[Item] | None:
        """The client of that name, if a frame of its waits or is under way."""
        return self._clients.get(name)

    def add(self, name: str, item: Item, weight: float = 1.0) -> None:
        """Have a frame wait behind those of the same client."""
        client = self._clients.setdefault(name, Client(name))
        client.weight = weight
        if not client.waiting:
            self._tag(client)
        client.waiting.append(item)

    def replace(self, name: str, item: Item, weight: float = 1.0) -> Item | None:
        """Have a frame wait in the place of the client's other one, which is returned; None where none waited."""
        client = self._clients.get(name)
        if client is None or not client.waiting:
            self.add(name, item, weight)
            return None
        before, client.waiting[0] = client.waiting[0], item
        return before

    def take(self, alone: bool = False) -> tuple[Client[Item], Item] | None:
        """Take the frame that is next; it is under way until `end`. None where nothing may go.

        Args:
            alone: at most one frame of a client is under way.
        """
        able = [client for client in self._clients.values() if client.waiting and not (alone and client.running)]
        if not able:
            return None
        client = min(able, key=lambda each: each._tag)
        self._served = max(self._served, client._tag[0])
        self._turns += 1
        self._last.pop(client.name, None)
        self._last[client.name] = client._tag[0], self._turns
        if len(self._last) > _MOST_REMEMBERED:
            del self._last[next(iter(self._last))]
        client.running += 1
        item = client.waiting.popleft()
        if client.waiting:
            self._tag(client)
        return client, item

    def end(self, client: Client[Item]) -> bool:
        """A frame of a client is done. Whether others of its wait."""
        client.running -= 1
        if not client.waiting and not client.running and self._clients.get(client.name) is client:
            del self._clients[client.name]
        return bool(client.waiting)

    def clear(self) -> list[Item]:
        """Forget all; the frames that waited."""
        items = [item for client in self._clients.values() for item in client.waiting]
        self._clients.clear()
        return items

    def _tag(self, client: Client[Item]) -> None:
        self._tagged += 1
        turn = 1 / client.weight
        tag, number = self._last.get(client.name, (self._served, self._turns))
        since = max(tag, self._served - turn)
        client._tag = (since + turn, number, self._tagged)  # among equals, whose last turn is longest ago
