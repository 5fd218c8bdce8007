"""A stream of a URL, as the server has it, told line by line on standard output; see `tests.faults.network`.

    python -m tests.faults.watch MODEL URL

Each line is JSON: ``{"at": seconds, "state": ...}`` when the state changes, ``{"at": ..., "shown": number}`` for a
frame, with the number that it shows. It ends when standard input does.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from perception import load_model, open_source
from perception.server.inference.scheduler import Scheduler
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from tests.media import read_stamp

TIMEOUTS = Timeouts()


def main() -> None:
    """The program."""
    model_path, url = sys.argv[1:]
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with load_model(model_path, precision="fp32") as model, Scheduler(model) as scheduler:
        stream = Stream("camera", "camera", lambda: open_source(url, timeout=TIMEOUTS.silence), scheduler)
        told = ""
        try:
            with stream.subscribe() as viewer:
                while not ended.is_set():
                    prediction = viewer.next(0.1)
                    if stream.state != told:
                        told = stream.state
                        say(state=told, message=stream.status()["message"])
                    if prediction is not None:
                        frame = prediction.frame
                        say(shown=read_stamp(frame.image), time=round(frame.time, 3), index=frame.index)
        finally:
            stream.close()


def say(**values: object) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"at": round(time.monotonic(), 3), **values}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
