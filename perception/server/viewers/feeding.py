"""From a place at a stream into a sink."""

from __future__ import annotations

import time
from collections.abc import Callable

from perception.card import ModelCard
from perception.server.streams.subscription import Subscription
from perception.sinks.base import Sink
from perception.types import Frame, SourceInfo


def feed(
    sink: Sink,
    subscription: Subscription,
    card: ModelCard,
    info: Callable[[Frame], SourceInfo],
    interval_s: float = 0.0,
) -> None:
    """Write a stream's predictions into a sink until nothing will come any more; the sink is closed then.

    Args:
        sink: opened with the first frame; aborted where it fails.
        subscription: of the stream.
        card: of its model.
        info: tells of the first frame what the sink is opened with.
        interval_s: seconds between two results, at least.
    """
    with sink:
        opened = False
        due = 0.0
        while not subscription.over:
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(min(pause, 0.1))  # and no longer: its end is not told to who sleeps
                continue
            prediction = subscription.next(1.0, sink.wants_picture)
            if prediction is None:
                continue
            if not opened:
                sink.open(info(prediction.frame), card)
                opened = True
            due = time.monotonic() + interval_s
            sink.write(prediction)
            del prediction
