"""The process that eats inputs: limited in memory, and free to crash or to hang.

    python -m tests.fuzz.child FAMILY SEED FIRST COUNT FOLDER REPORT [INPUT ...]

It writes a line of JSON to the descriptor REPORT before and after each input, which also lies in ``FOLDER/current``
meanwhile. With INPUTs it eats these files, and makes up none.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import logging
import os
import resource
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from perception.errors import PerceptionError
from tests.fuzz.families import FAMILIES
from tests.fuzz.family import MOST_MEMORY

MOST_BYTES = 3 << 30
"""Of data beyond what the process holds at the beginning: an allocation beyond fails here, and not the machine."""


class Ears(logging.Handler):
    """What is told of exceptions that nobody was meant to see."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            self.heard.append("".join(traceback.format_exception(*record.exc_info)))
        elif "Traceback" in record.getMessage():
            self.heard.append(record.getMessage())

    def listen(self) -> None:
        """To logs, threads, and what Python cannot raise."""
        for name in ("", "perception", "uvicorn", "uvicorn.error", "asyncio"):
            logging.getLogger(name).addHandler(self)
        threading.excepthook = lambda args: self._hear(args.exc_value)
        sys.unraisablehook = lambda args: self._hear(args.exc_value)

    def _hear(self, error: BaseException | None) -> None:
        if error is not None:
            self.heard.append("".join(traceback.format_exception(error)))


def status(key: str) -> int:
    """A figure of this process, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{key}:")[2].split()[0]) << 10


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def main() -> None:
    family_name, seed, first, count, folder_name, report, *inputs = sys.argv[1:]
    folder = Path(folder_name)
    scratch = folder / "scratch"
    for made in (scratch, folder / "home"):
        made.mkdir(parents=True, exist_ok=True)
    out = os.fdopen(int(report), "w", buffering=1)
    os.environ["TMPDIR"] = str(scratch)
    os.chdir(scratch)

    def tell(**what: Any) -> None:
        out.write(json.dumps(what) + "\n")

    ears = Ears()
    ears.listen()
    family = FAMILIES[family_name]()(scratch)
    kept = [Path(path).read_bytes() for path in inputs]
    for number in range(2):  # what is loaded and kept the first time is no input's
        with contextlib.suppress(Exception):
            family.eat(family.make(seed=-1, index=number))
    gc.collect()
    held = status("VmRSS")
    with contextlib.suppress(OSError, ValueError):
        most = status("VmData") + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    before = files_in(scratch)
    tell(ready=held)
    for index in range(int(first), int(first) + (len(kept) or int(count))):
        data = kept[index - int(first)] if kept else family.make(int(seed), index)
        (folder / "current").write_bytes(data)
        ears.heard.clear()
        forget_peak()
        tell(begin=index, limit=family.limit(data))
        outcome, detail = "refused", ""
        try:
            outcome = "accepted" if family.eat(data) else "refused"
        except PerceptionError as error:
            detail = str(error)
        except Exception:
            outcome, detail = "traceback", traceback.format_exc()
        if ears.heard:
            outcome, detail = "traceback", ears.heard[0]
        left = sorted(files_in(scratch) - before)
        before |= set(left)
        peak = max(status("VmHWM") - held, 0)
        kept_data = data if outcome == "traceback" or left or peak > MOST_MEMORY else b""
        tell(
            end=index,
            outcome=outcome,
            detail=detail[-4000:],
            peak=peak,
            left=left[:5],
            data=base64.b64encode(kept_data).decode(),
        )
    tell(over=True)
    out.flush()
    os._exit(0)  # nothing is to wait for threads that hang


if __name__ == "__main__":
    main()
