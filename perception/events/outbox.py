"""The outbox: events on disk until each of their targets has accepted them."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from perception.common.private import make_folder, reserve_private
from perception.errors import UsageError

log = logging.getLogger("perception")

ROW_BYTES = 512
"""What an event takes beside its text: ids, indices, and room in pages."""

HELD_BYTES = 16 << 20
"""Events kept in memory while the disk takes none."""

RETRY_S = 2.0
"""Seconds between attempts to write what is held in memory."""

_TABLES = """
CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL,
  size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pending (target TEXT NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY (target, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_seq ON pending (seq);
CREATE TABLE IF NOT EXISTS counter (target TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL,
  PRIMARY KEY (target, name)) WITHOUT ROWID;
"""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Letter:
    """An event on its way to a target.

    Attributes:
        id: of the event.
        body: its JSON.
    """

    id: str
    body: str


class Outbox:
    """Keeps events until all of their targets have them, over restarts and power cuts. Safe to use from any thread.

    It is a SQLite file with a write-ahead log, synchronised with the disk at each commit. Only one process has it open.
    Beyond ``limit_bytes`` the oldest events are dropped, and counted for each target that still lacked them. While the
    disk takes nothing, events are held in memory, where they count against `HELD_BYTES`, and are delivered from there.

    Args:
        path: the file; made where it is missing, for its owner alone.
        limit_bytes: most that its events take.

    Raises:
        UsageError: it cannot be made, or another process has it open.

    Attributes:
        problem: why the disk takes nothing now, or nothing.
    """

    def __init__(self, path: Path, limit_bytes: int = 64 << 20) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.problem = ""
        self._lock = threading.RLock()
        self._held: dict[str, tuple[str, set[str]]] = {}
        self._held_bytes = 0
        self._retry_at = 0.0
        self._unmarked: set[tuple[str, str]] = set()
        self._bytes = 0
        self._closed = False
        try:
            make_folder(path.parent)
            reserve_private(path)
            self._file_lock = FileLock(f"{path}.lock")
            self._file_lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                "another process delivers events from here; give each an outbox of its own", path
            ) from None
        except OSError as error:
            raise UsageError(f"the outbox of events cannot be made: {error.strerror or error}", path) from None
        try:
            self._database = self._open()
            self._bytes = self._sum()
        except BaseException:
            self._file_lock.release()
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            return _connected(self.path)
        except sqlite3.OperationalError as error:
            raise UsageError(f"the outbox of events cannot be opened: {error}", self.path) from None
        except sqlite3.DatabaseError as error:
            aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                with suppress(OSError):
                    self.path.with_name(self.path.name + suffix).unlink()
            log.warning("%s: damaged (%s); it is kept as %s, and a new one begun", self.path, error, aside.name)
            reserve_private(self.path)
            return _connected(self.path)

    def add(self, letters: Sequence[Letter], targets: Sequence[str]) -> None:
        """Add events, each to be delivered to each target; those whose id is there already stay as they are."""
        with self._lock:
            if not targets:
                return
            if self._held or not self._write(lambda: self._insert([(one, {*targets}) for one in letters])):
                for one in letters:
                    self._hold(one, {*targets})
                self._write_held()

    def take(self, target: str, most: int) -> list[Letter]:
        """Return the oldest events that a target lacks, at most ``most``; they stay until they are `done`."""
        with self._lock:
            self._write_held()
            unmarked = {one for name, one in self._unmarked if name == target}
            query = "SELECT id, body FROM pending JOIN event USING (seq) WHERE target = ? ORDER BY pending.seq LIMIT ?"
            rows: list[tuple[str, str]] = []
            self._read(lambda: rows.extend(self._database.execute(query, (target, most + len(unmarked)))))
            found = [Letter(*row) for row in rows if row[0] not in unmarked]
            there = {letter.id for letter in found}
            for one, (body, targets) in self._held.items():
                if len(found) >= most:
                    break
                if target in targets and one not in there:
                    found.append(Letter(one, body))
            return found[:most]

    def done(self, target: str, ids: Sequence[str], counter: str = "delivered") -> None:
        """Note that a target has events, or will never take them, which another ``counter`` tells."""
        with self._lock:
            for one in ids:
                if one in self._held:
                    body, targets = self._held[one]
                    targets.discard(target)
                    if not targets:
                        self._held_bytes -= _size(body)
                        del self._held[one]
            self._unmarked.update((target, one) for one in ids)
            marks = [one for name, one in self._unmarked if name == target]
            if self._write(lambda: self._mark(target, marks, {counter: len(ids)})):
                self._unmarked.difference_update((target, one) for one in marks)

    def pending(self, target: str) -> int:
        """Return how many events a target lacks."""
        with self._lock:
            rows: list[tuple[int]] = []
            query = "SELECT count(*) FROM pending WHERE target = ?"
            self._read(lambda: rows.extend(self._database.execute(query, (target,))))
            held = sum(target in targets for _, targets in self._held.values())
            unmarked = sum(name == target for name, _ in self._unmarked)
            return max(sum(row[0] for row in rows) - unmarked, 0) + held

    def counters(self, target: str) -> dict[str, int]:
        """Return the totals of a target since the outbox was made: ``delivered``, ``dropped``, ``refused``."""
        with self._lock:
            rows: list[tuple[str, int]] = []
            query = "SELECT name, value FROM counter WHERE target = ?"
            self._read(lambda: rows.extend(self._database.execute(query, (target,))))
            return {"delivered": 0, "dropped": 0, "refused": 0, **dict(rows)}

    def close(self) -> None:
        """Close it; what is held in memory is written, or lost with a line in the log. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._retry_at = 0.0
            self._write_held()
            if self._held:
                log.error("%s: %d events are lost: %s", self.path, len(self._held), self.problem)
                self._held.clear()
            self._closed = True
            with suppress(sqlite3.Error):
                self._database.close()
            self._file_lock.release()

    # All below with the lock.

    def _write(self, work: Callable[[], object]) -> bool:
        """Do something in a transaction; False, with `problem` set, where the disk does not let it."""
        try:
            with self._database:
                work()
        except sqlite3.Error as error:
            self._fault(error)
            with suppress(sqlite3.Error):
                self._bytes = self._sum()
            return False
        if self.problem:
            log.warning("%s: can be written again", self.path)
            self.problem = ""
        return True

    def _read(self, work: Callable[[], object]) -> None:
        try:
            work()
        except sqlite3.Error as error:
            self._fault(error)

    def _fault(self, error: sqlite3.Error) -> None:
        if not self.problem and not self._closed:
            log.warning("%s: %s; events are kept in memory meanwhile", self.path, error)
        self.problem = str(error)

    def _sum(self) -> int:
        return int(self._database.execute("SELECT coalesce(sum(size), 0) FROM event").fetchone()[0])

    def _insert(self, letters: Sequence[tuple[Letter, set[str]]]) -> None:
        for letter, targets in letters:
            size = _size(letter.body)
            cursor = self._database.execute(
                "INSERT OR IGNORE INTO event (id, body, size) VALUES (?, ?, ?)", (letter.id, letter.body, size)
            )
            if cursor.rowcount:
                self._bytes += size
                rows = [(target, cursor.lastrowid) for target in targets]
                self._database.executemany("INSERT INTO pending VALUES (?, ?)", rows)
        while self._bytes > self.limit_bytes and self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        row = self._database.execute("SELECT seq FROM event ORDER BY seq LIMIT 1").fetchone()
        if row is None:
            return False
        for (target,) in self._database.execute("SELECT target FROM pending WHERE seq = ?", row).fetchall():
            self._count(target, "dropped", 1)
        self._database.execute("DELETE FROM pending WHERE seq = ?", row)
        self._remove(row[0])
        return True

    def _remove(self, seq: int) -> None:
        """Remove an event that no target lacks."""
        row = self._database.execute("SELECT size FROM event WHERE seq = ?", (seq,)).fetchone()
        if row and not self._database.execute("SELECT 1 FROM pending WHERE seq = ?", (seq,)).fetchone():
            self._database.execute("DELETE FROM event WHERE seq = ?", (seq,))
            self._bytes -= row[0]

    def _mark(self, target: str, ids: Sequence[str], counts: dict[str, int]) -> None:
        for one in ids:
            row = self._database.execute("SELECT seq FROM event WHERE id = ?", (one,)).fetchone()
            if row is None:
                continue
            self._database.execute("DELETE FROM pending WHERE target = ? AND seq = ?", (target, row[0]))
            self._remove(row[0])
        for name, number in counts.items():
            self._count(target, name, number)

    def _count(self, target: str, name: str, number: int) -> None:
        self._database.execute(
            "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            (target, name, number),
        )

    def _hold(self, letter: Letter, targets: set[str]) -> None:
        if letter.id in self._held:
            return
        self._held[letter.id] = letter.body, targets
        self._held_bytes += _size(letter.body)
        while self._held_bytes > min(HELD_BYTES, self.limit_bytes):
            first = next(iter(self._held))
            self._held_bytes -= _size(self._held.pop(first)[0])
            log.error("%s: an event is lost: %s, and memory for events is used up", self.path, self.problem)

    def _write_held(self) -> None:
        now = time.monotonic()
        if not self._held or now < self._retry_at:
            return
        self._retry_at = now + RETRY_S
        held = [(Letter(one, body), targets) for one, (body, targets) in self._held.items()]
        if self._write(lambda: self._insert(held)):
            self._held.clear()
            self._held_bytes = 0


def _size(body: str) -> int:
    return len(body.encode()) + ROW_BYTES


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA journal_size_limit = 1048576")
        database.executescript(_TABLES)
        database.execute("SELECT count(*) FROM pending").fetchone()
    except BaseException:
        database.close()
        raise
    return database
