"""Many inputs of one family: how they are eaten, and what is counted."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.family import HANG_S, MOST_MEMORY

READY_S = 600.0
KEPT_BYTES = 100_000
"""Of an input, in the corpus."""

CORPUS = Path(__file__).with_name("corpus")
ROOT = Path(__file__).parents[2]


@dataclass
class Fault:
    """What an input did that it must not.

    Attributes:
        kind: ``crash``, ``hang``, ``memory``, ``traceback`` or ``left``.
        index: its number.
        detail: what is known of it.
        data: the input.
    """

    kind: str
    index: int
    detail: str
    data: bytes

    @property
    def place(self) -> str:
        """What tells it from others: of a traceback its last place in this package, and its last line."""
        if self.kind != "traceback":
            return f"{self.kind}: {self.detail[:100]}"
        places = re.findall(r'File ".*?((?:perception|tests)/\S+)", line (\d+)', self.detail)
        last = ":".join(places[-1]) if places else "?"
        return f"{last}: {self.detail.strip().splitlines()[-1][:160]}"


@dataclass
class Tally:
    """The outcome of a family."""

    family: str
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    peak: int = 0
    seconds: float = 0.0  # without those to begin
    slowest: float = 0.0

    def count(self, kind: str) -> int:
        return sum(fault.kind == kind for fault in self.faults)

    def row(self) -> list[Any]:
        """The family's row of the table."""
        faults = [self.count(kind) for kind in ("crash", "hang", "memory", "traceback", "left")]
        return [self.family, self.inputs, self.outcomes["refused"], self.outcomes["accepted"], *faults]


HEADINGS = ["family", "inputs", "refused cleanly", "accepted", "crashes", f"hangs > {HANG_S:.0f} s",
            "peak memory > 1 GB", "tracebacks", "files left"]  # fmt: skip


def table(tallies: Sequence[Tally]) -> str:
    """The table in Markdown."""
    rows = [HEADINGS, ["---"] + ["---:"] * (len(HEADINGS) - 1), *(tally.row() for tally in tallies)]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


class _Child:
    """A process that eats; see `tests.fuzz.child`."""

    def __init__(self, family: str, seed: int, first: int, count: int, inputs: Sequence[Path] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="perception-fuzz-"))
        reads, writes = os.pipe()
        self.log = self.folder / "log"
        command = [sys.executable, "-m", "tests.fuzz.child", family, str(seed), str(first), str(count),
                   str(self.folder), str(writes), *map(str, inputs)]  # fmt: skip
        home = self.folder / "home"
        env = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home), "PYTHONFAULTHANDLER": "1"}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH", ""))))
        # Kernels that are compiled already are not compiled again; nothing else of the user's is seen.
        env.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=[writes], env=env, cwd=ROOT,
                start_new_session=True,
            )  # fmt: skip
        os.close(writes)
        self._reads = reads
        self._pending = b""

    def event(self, seconds: float) -> dict[str, Any] | None:
        """What it tells next; None where it ends or says nothing for so long (then it still runs)."""
        until = time.monotonic() + seconds
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._reads], [], [], max(until - time.monotonic(), 0))
            if not ready:
                return None
            data = os.read(self._reads, 65536)
            if not data:
                self.process.wait(30)
                return None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # it leads its own session
        self.process.wait(30)
        os.close(self._reads)
        shutil.rmtree(self.folder, ignore_errors=True)

    def last_words(self) -> str:
        code = self.process.poll()
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        said = self.log.read_text(errors="replace")
        frames = re.findall(r'File ".*?((?:perception|tests)/\S+)", line (\d+)', said)
        return f"{how} at {':'.join(frames[0]) if frames else '?'}"


def campaign(
    family: str, inputs: int, seconds: float, seed: int = 0, first: int = 0, kept: Sequence[Path] = ()
) -> Tally:
    """Have a family's inputs eaten, until there have been so many or the time is over.

    Args:
        family: its name.
        inputs: how many.
        seconds: how long; begun inputs are finished.
        seed, first: of the first input.
        kept: files to eat instead.
    """
    tally = Tally(family)
    at, end = first, first + (len(kept) or inputs)
    while at < end and (tally.seconds < seconds or not tally.inputs):
        rest = kept[at - first :] if kept else ()
        at = _feed(tally, at, end, seconds, seed, rest)
    return tally


def _feed(tally: Tally, at: int, end: int, seconds: float, seed: int, kept: Sequence[Path]) -> int:
    """One process, until it ends; the number of the next input."""
    child = _Child(tally.family, seed, at, end - at, kept)
    before, ready = tally.seconds, time.monotonic()
    try:
        if child.event(READY_S) is None:
            raise RuntimeError(f"{tally.family} does not begin: {child.log.read_text(errors='replace')[-3000:]}")
        ready = time.monotonic()
        while True:
            begin = child.event(60.0)
            if begin is None:
                raise RuntimeError(
                    f"{tally.family} makes no input {at}: {child.log.read_text(errors='replace')[-3000:]}"
                )
            if "over" in begin:
                return end
            at, began = begin["begin"], time.monotonic()
            told = child.event(begin["limit"])
            tally.inputs += 1
            if told is None:
                data = (child.folder / "current").read_bytes()
                hangs = child.process.poll() is None
                detail = _hanging(child) if hangs else child.last_words()
                if hangs and not _hangs_alone(tally.family, data):  # the machine was busy
                    tally.outcomes["accepted"] += 1
                    return at + 1
                tally.faults.append(Fault("hang" if hangs else "crash", at, detail, data))
                return at + 1
            tally.slowest = max(tally.slowest, time.monotonic() - began)
            _note(tally, told)
            at += 1
            if before + time.monotonic() - ready > seconds:
                return at
    finally:
        tally.seconds = before + time.monotonic() - ready
        child.end()


def _note(tally: Tally, told: dict[str, Any]) -> None:
    tally.outcomes[told["outcome"]] += 1
    tally.peak = max(tally.peak, told["peak"])
    kinds = [("traceback", told["detail"])] if told["outcome"] == "traceback" else []
    kinds += [("memory", f"{told['peak'] >> 20} MiB")] if told["peak"] > MOST_MEMORY else []
    kinds += [("left", ", ".join(told["left"]))] if told["left"] else []
    for kind, detail in kinds:
        tally.faults.append(Fault(kind, told["end"], detail, base64.b64decode(told["data"])))


def _hanging(child: _Child) -> str:
    """Where it hangs: the traceback that faulthandler writes."""
    child.process.send_signal(signal.SIGABRT)
    try:
        child.process.wait(10)
    except subprocess.TimeoutExpired:
        return "it does not even abort"
    return child.last_words().partition(" at ")[2]


def _hangs_alone(family: str, data: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"
        path.write_bytes(data)
        child = _Child(family, 0, 0, 1, [path])
        try:
            child.event(READY_S)
            begin = child.event(HANG_S)
            return begin is None or child.event(2 * begin["limit"]) is None
        finally:
            child.end()


def keep(fault: Fault, family: str) -> Path | None:
    """Keep an input in the corpus, where it is not too large."""
    if len(fault.data) > KEPT_BYTES:
        return None
    path = CORPUS / family / f"{fault.kind}-{fault.index}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fault.data)
    return path


def corpus(family: str) -> list[Path]:
    """The inputs that were faults once."""
    return sorted(path for path in (CORPUS / family).glob("*") if path.is_file())


def kinds(faults: Sequence[Fault]) -> Iterator[tuple[str, list[Fault]]]:
    """Faults by what tells them apart, the commonest first."""
    places = Counter(fault.place for fault in faults)
    for place, _ in places.most_common():
        yield place, [fault for fault in faults if fault.place == place]
