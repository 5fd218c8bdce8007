"""Changes to bytes, and to the trees that JSON and YAML stand for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Span = tuple[int, int]

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
           0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
LARGEST = 2_000_000
"""Bytes; what grows beyond is cut off."""


def mutated(random: Random, data: bytes, spans: Sequence[Span] = (), most: int = 4) -> bytes:
    """``data`` with a few changes.

    Args:
        random: decides.
        data: a good file.
        spans: where its parts begin and end: their heads are what is changed most, and they are moved as a whole.
        most: changes.
    """
    changed = bytearray(data)
    spans = list(spans)
    for _ in range(random.randint(1, most)):
        if not changed:
            break
        change = random.choice(_ON_SPANS if spans and random.random() < 0.6 else _ON_BYTES)
        change(random, changed, spans)
        if change in _MOVING:
            spans = []  # they are elsewhere now
    return bytes(changed[:LARGEST])


def _place(random: Random, data: bytearray, spans: list[Span]) -> int:
    if spans and random.random() < 0.7:
        start, end = random.choice(spans)
        return min(start + random.randrange(max(min(end - start, 64), 1)), len(data) - 1)
    return random.randrange(len(data))


def _flip(random: Random, data: bytearray, spans: list[Span]) -> None:
    for _ in range(random.choice((1, 1, 2, 8, 50))):
        data[_place(random, data, spans)] ^= 1 << random.randrange(8)


def _noise(random: Random, data: bytearray, spans: list[Span]) -> None:
    for _ in range(random.choice((1, 4, 30))):
        data[_place(random, data, spans)] = random.randrange(256)


def _number(random: Random, data: bytearray, spans: list[Span]) -> None:
    """What a length, a count or a size may be."""
    size = random.choice((1, 2, 3, 4, 4, 8))
    value = random.choice((*NUMBERS, len(data), random.randrange(1 << 32))) % (1 << 8 * size)
    at = _place(random, data, spans)
    data[at : at + size] = value.to_bytes(size, random.choice(("big", "little")))


def _cut(random: Random, data: bytearray, spans: list[Span]) -> None:
    del data[random.randrange(len(data)) :]


def _remove(random: Random, data: bytearray, spans: list[Span]) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.randrange(1, 200)]


def _insert(random: Random, data: bytearray, spans: list[Span]) -> None:
    at = random.randrange(len(data))
    data[at:at] = random.randbytes(random.choice((1, 4, 60, 1000)))


def _blank(random: Random, data: bytearray, spans: list[Span]) -> None:
    at, size = random.randrange(len(data)), random.randrange(1, 500)
    size = min(size, len(data) - at)
    data[at : at + size] = bytes([random.choice((0, 0xFF))]) * size


def _repeat(random: Random, data: bytearray, spans: list[Span]) -> None:
    """A part, once more or many times."""
    start, end = random.choice(spans) if spans else (random.randrange(len(data)), len(data))
    part = bytes(data[start : min(end, start + 20_000)])
    data[start:start] = part * random.choice((1, 1, 2, 50))


def _swap(random: Random, data: bytearray, spans: list[Span]) -> None:
    (a, b), (c, d) = sorted((random.choice(spans), random.choice(spans)))
    if b <= c:
        data[a:d] = data[c:d] + data[b:c] + data[a:b]


def _drop(random: Random, data: bytearray, spans: list[Span]) -> None:
    start, end = random.choice(spans)
    del data[start:end]


def _end_after(random: Random, data: bytearray, spans: list[Span]) -> None:
    """Cut where a part ends, or just begins."""
    start, end = random.choice(spans)
    del data[random.choice((end, start + 4, start + 8)) :]


_Change = Callable[[Random, bytearray, list[Span]], None]
_ON_BYTES: tuple[_Change, ...] = (_flip, _noise, _number, _cut, _remove, _insert, _blank)
_ON_SPANS: tuple[_Change, ...] = (_flip, _number, _number, _noise, _repeat, _swap, _drop, _end_after)
_MOVING = frozenset((_cut, _remove, _insert, _repeat, _swap, _drop, _end_after))


ODD: tuple[Any, ...] = (
    None, True, False, "", " ", "x" * 5000, "\0", "é\u202e\n", "../../../etc/passwd", "/etc/passwd", "1/0", "nan",
    "-1", "NaN", "0x10", "1e999", 0, -1, 1, 255, 256, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.5, 1e-320, 1e308,
    math.inf, -math.inf, math.nan, [], {}, [[]], [None], [0] * 300, [[[[0]]]], {"": None}, {"a": {"b": {"c": {}}}},
)  # fmt: skip


def odd_tree(random: Random, tree: Any, most: int = 3) -> Any:
    """``tree`` of dictionaries and lists, with a few of its nodes changed."""
    tree = copy.deepcopy(tree)
    for _ in range(random.randint(1, most)):
        holder, key = _node(random, tree)
        if holder is None:
            tree = random.choice(ODD)
            continue
        _change(random, holder, key)
    return tree


def _node(random: Random, tree: Any) -> tuple[Any, Any]:
    """A place in the tree: what holds it, and its key."""
    holder, key, at = None, None, tree
    while isinstance(at, (dict, list)) and at:
        if holder is not None and random.random() < 0.2:
            break
        holder = at
        key = random.choice(list(at)) if isinstance(at, dict) else random.randrange(len(at))
        at = holder[key]
    return holder, key


def _change(random: Random, holder: Any, key: Any) -> None:
    value = holder[key]
    what = random.randrange(7)
    if what == 0:
        del holder[key]
    elif what == 1:
        holder[key] = [value] * random.choice((1, 2, 40))
    elif what == 2:
        holder[key] = {random.choice(("x", "", "name", "0")): value}
    elif what == 3 and isinstance(holder, dict):
        holder[random.choice((f"{key}x", str(key).upper(), "", "id"))] = holder.pop(key)
    elif what == 4 and isinstance(value, (int, float)) and not isinstance(value, bool):
        holder[key] = random.choice((-value, value * 1000, value // 2 + 1, str(value), -(value // 2), [value]))
    elif what == 5 and isinstance(holder, list):
        holder.insert(key, value)
    else:
        holder[key] = copy.deepcopy(random.choice(ODD))
