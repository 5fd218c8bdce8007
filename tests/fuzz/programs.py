"""Programs in place of inputs: what tests of the harness itself are eaten by."""

from __future__ import annotations

from tests.fuzz.family import Family, pack, unpack


class Inputs(Family):
    """Runs an input as Python."""

    def make(self, seed: int, index: int) -> bytes:
        return pack(b"pass", limit=3.0)

    def limit(self, data: bytes) -> float:
        return float(unpack(data)[0]["limit"])

    def eat(self, data: bytes) -> bool:
        exec(unpack(data)[1], {})
        return True
