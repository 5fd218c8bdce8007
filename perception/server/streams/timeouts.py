"""Time-outs of a stream."""

from __future__ import annotations

from dataclasses import dataclass

from perception.common.backoff import back_off


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs of a stream, and its pauses before it reconnects, in seconds.

    Attributes:
        stall: without a frame for so long, a live source is shown as stalled.
        silence: without a frame for so long, it is given up and connected anew.
        opening: a connection that is not there by then is given up.
        first_pause, longest_pause: before connecting anew: doubled each time, less up to a third by chance, so that
            the streams of a camera that was away do not all come at once.
        settled: after so long without a failure the pauses start from the first one again.
        age: a result that is older than this when it is done is dropped and not shown.
    """

    stall: float = 2.0
    silence: float = 10.0
    opening: float = 25.0
    first_pause: float = 0.5
    longest_pause: float = 30.0
    settled: float = 10.0
    age: float = 1.0

    def pause(self, failures: int) -> float:
        """The pause after that many failures in a row, at least 1, see `back_off`."""
        return back_off(failures, self.first_pause, self.longest_pause)
