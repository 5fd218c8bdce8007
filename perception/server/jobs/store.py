"""Store of jobs, videos that clients uploaded and their results: rows in SQLite, files in one folder per job.

    folder/jobs.sqlite3
    folder/<id>/input          the upload, under no name of the client's
    folder/<id>/output.mp4     annotated, with sound
    folder/<id>/output.jsonl   one line a frame

A job goes ``receiving -> queued -> running -> done | failed``. A restart of the server finds it where it was: what was
being received is gone with its connection and failed, what was running begins anew. Finished jobs, and everything of
theirs, are removed after their time to live.

    job = store.create("street.mp4", Options())
    ...write store.input(job.id)...
    store.queue(job.id)                      # raises where it is no video, or too long or too large
    store.get(job.id).state                  # "queued", and in time "done"
    store.result(job.id, "video")
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from perception.common.private import private_folder, reserve_private
from perception.errors import PerceptionError, SinkError
from perception.server.edge.places import share_of
from perception.server.edge.uploads import check_video
from perception.server.metrics import Metrics
from perception.server.options import Options
from perception.server.problems import Busy, Conflict, NotFound, Problem
from perception.server.settings import Limits

log = logging.getLogger("perception")

State: TypeAlias = Literal["receiving", "queued", "running", "done", "failed"]
ResultKind: TypeAlias = Literal["video", "jsonl"]

RESULTS: dict[ResultKind, tuple[str, str]] = {
    "video": ("output.mp4", "video/mp4"),
    "jsonl": ("output.jsonl", "application/x-ndjson"),
}
"""File name and media type of each result."""

ATTEMPTS = 2
"""Times that the server may end during a job before the job fails: it may be the cause."""

_FOLDER = re.compile(r"[0-9a-f]{32}")
_OPEN = ("receiving", "queued", "running")
_ENDED = ("done", "failed")
_COLUMNS = "id, name, state, model, options, created, updated, frames, total, fps, error, attempts"
_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, model TEXT, options TEXT NOT NULL,
    created REAL NOT NULL, updated REAL NOT NULL, frames INTEGER NOT NULL, total INTEGER, fps REAL,
    error TEXT, attempts INTEGER NOT NULL
)
"""


@dataclass(frozen=True)
class Job:
    """One uploaded video.

    Attributes:
        id: random, not to be guessed.
        name: what the client calls it; for people, never a path.
        state: where it stands.
        model: name of the model; None: the server's default.
        options: thresholds and drawing.
        created, updated: seconds since 1970.
        frames: frames done.
        total: frames that there will be, as far as the file tells.
        fps: frames a second of wall time, once done.
        error: one line, where it failed.
        attempts: how often it was begun.
    """

    id: str
    name: str
    state: State = "receiving"
    model: str | None = None
    options: Options = field(default_factory=Options)
    created: float = 0.0
    updated: float = 0.0
    frames: int = 0
    total: int | None = None
    fps: float | None = None
    error: str | None = None
    attempts: int = 0

    @property
    def ended(self) -> bool:
        """True once the state is final."""
        return self.state in _ENDED


class JobStore:
    """All jobs of a server. Safe to use from any thread.

    Args:
        folder: where they are kept; made if need be.
        limits: how many, how large, how long.
        metrics: told of jobs that end.
        clock: seconds, by which finished jobs are kept: the machine's own time may be set meanwhile.

    Raises:
        SinkError: the folder cannot be written, or another server uses it.
    """

    def __init__(
        self, folder: Path, limits: Limits, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self._limits = limits
        self._metrics = metrics
        self._changed = threading.Condition(threading.RLock())
        self._progress: dict[str, tuple[int, int | None]] = {}
        self._clients: dict[str, str] = {}  # who sent the jobs that wait; not kept: an address is nobody's for long
        self._held: str | None = None  # what the worker has in hand: its files stay until it lets go
        self._closed = False
        self._now = clock
        self._ended: dict[str, float] = {}  # by the clock, when a job ended
        try:
            private_folder(folder)
            reserve_private(folder / "jobs.sqlite3")  # SQLite gives its journal the same mode
            self._db = sqlite3.connect(folder / "jobs.sqlite3", check_same_thread=False, timeout=1.0)
            # One server a folder: two would work on the same jobs.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            with self._db:
                self._db.execute(_TABLE)
                self._db.execute("UPDATE jobs SET attempts = attempts")  # takes the lock, for good
            self._recover()
        except sqlite3.OperationalError as error:
            raise SinkError(
                "another server uses this folder; give each its own: `data_dir=FOLDER`"
                if "locked" in str(error)
                else f"cannot be used for jobs: {error}",
                folder,
            ) from None
        except (OSError, sqlite3.DatabaseError) as error:
            raise SinkError(f"cannot be used for jobs: {error}", folder) from None
        metrics.jobs_waiting(lambda: self._count(_OPEN))

    def _recover(self) -> None:
        """Recover the jobs of an earlier server."""
        with self._changed, self._db:
            now = time.time()
            self._db.execute(
                "UPDATE jobs SET state = 'failed', updated = ?, error = ? WHERE state = 'receiving'",
                (now, "the upload was cut off when the server stopped; send it again"),
            )
            self._db.execute(
                "UPDATE jobs SET state = 'failed', updated = ?, error = ? WHERE state = 'running' AND attempts >= ?",
                (now, f"the server ended {ATTEMPTS} times in the middle of it", ATTEMPTS),
            )
            self._db.execute("UPDATE jobs SET state = 'queued', updated = ? WHERE state = 'running'", (now,))
            for job_id, options in self._db.execute("SELECT id, options FROM jobs").fetchall():
                if not _is_options(options):
                    self._db.execute("UPDATE jobs SET options = '{}' WHERE id = ?", (job_id,))
                    self._db.execute(
                        "UPDATE jobs SET state = 'failed', updated = ?, error = ? WHERE id = ? AND state = 'queued'",
                        (
                            now,
                            "another version of the server took it, with settings unknown here; send it again",
                            job_id,
                        ),
                    )
        found = self.all()
        # An earlier server's are as old as the machine's time says, which may have been another one then.
        self._ended = {job.id: self._now() - max(0.0, now - job.updated) for job in found if job.ended}
        known = {job.id for job in found}
        for path in self.folder.iterdir():
            # Nothing but what was made here: the operator may have named a folder that holds more.
            if path.is_dir() and _FOLDER.fullmatch(path.name) and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)
        for job in self.all():
            self._tidy(job.id, job.state)
        self.expire()

    def create(self, name: str, options: Options, model: str | None = None, client: str = "") -> Job:
        """Create a job, whose upload is about to be received.

        Args:
            name: what the client calls it.
            options: thresholds and drawing.
            model: name of the model.
            client: who sends it, see `perception.server.edge.places.client_of`.

        Raises:
            Busy: too many jobs are waiting, or too many of this client's.
            SinkError: its folder cannot be made.
        """
        self.expire()
        now = time.time()
        job = Job(secrets.token_hex(16), _printable(name), "receiving", model, options, now, now)
        with self._changed:
            if self._count(_OPEN) >= self._limits.jobs_waiting:
                raise Busy(f"{self._limits.jobs_waiting} jobs are waiting, which is the limit", 30, 429)
            self._check_share(client)
            try:
                private_folder(self.folder / job.id)
                self._write(
                    f"INSERT INTO jobs ({_COLUMNS}) VALUES ({', '.join('?' * 12)})",
                    (job.id, job.name, job.state, model, options.model_dump_json(exclude_defaults=True))
                    + (now, now, 0, None, None, None, 0),
                )
            except (OSError, SinkError) as error:
                shutil.rmtree(self.folder / job.id, ignore_errors=True)
                raise SinkError(f"the server cannot keep another job: {error}") from None
            self._clients[job.id] = client
        return job

    def _check_share(self, client: str) -> None:
        """Refuse a client whose jobs would fill the queue. Those that an earlier server took count for nobody."""
        marks = ", ".join("?" * len(_OPEN))
        waiting = {row[0] for row in self._db.execute(f"SELECT id FROM jobs WHERE state IN ({marks})", _OPEN)}
        self._clients = {job_id: owner for job_id, owner in self._clients.items() if job_id in waiting}
        most = share_of(self._limits.jobs_waiting, self._limits.share)
        if client and sum(owner == client for owner in self._clients.values()) >= most:
            raise Busy(f"{most} of your jobs are waiting, which is a client's share", 30, 429)

    def queue(self, job_id: str) -> Job:
        """Check a complete upload, and queue its job.

        Raises:
            PerceptionError: it is not a video, or exceeds a limit; the job is removed.
            SinkError: the data base cannot be written, on a full disk for one. So do all methods that change a job.
            NotFound: it was removed meanwhile.
        """
        job = self.get(job_id)
        try:
            check_video(self.input(job_id), job.name, self._limits)
        except PerceptionError:
            self.delete(job_id)
            raise
        if not self._update(job_id, state="queued"):
            raise _unknown(job_id)
        return self.get(job_id)

    def input(self, job_id: str) -> Path:
        """Return the path of the upload."""
        return self.folder / job_id / "input"

    def output(self, job_id: str, kind: ResultKind) -> Path:
        """Return the path of a result."""
        return self.folder / job_id / RESULTS[kind][0]

    def get(self, job_id: str) -> Job:
        """Return one job, with its progress.

        Raises:
            NotFound: there is none of that id, or no more.
        """
        found = self._select("WHERE id = ?", (job_id,))
        if not found:
            raise _unknown(job_id)
        return found[0]

    def all(self) -> list[Job]:
        """Return all jobs, the newest first."""
        return self._select("ORDER BY rowid DESC")

    def result(self, job_id: str, kind: ResultKind) -> Path:
        """Return the path of a finished result.

        Raises:
            NotFound: there is no such job.
            Conflict: it is not done.
        """
        job = self.get(job_id)
        if job.state == "failed":
            raise Conflict(f"the job failed: {job.error}")
        if job.state != "done":
            raise Conflict(f"the job is {job.state}; its results will be available when it is done")
        path = self.output(job_id, kind)
        if not path.is_file():
            raise NotFound("the result's file is gone from the server")
        return path

    def delete(self, job_id: str) -> None:
        """Delete a job and its files; cancel it if it runs.

        Raises:
            NotFound: there is no such job.
        """
        with self._changed:
            job = self.get(job_id)
            self._write("DELETE FROM jobs WHERE id = ?", (job_id,))
            self._progress.pop(job_id, None)
            self._ended.pop(job_id, None)
            if self._held != job_id:
                shutil.rmtree(self.folder / job_id, ignore_errors=True)
            self._changed.notify_all()
        if not job.ended:
            self._metrics.job_ended("cancelled")

    def discard(self, job_id: str) -> None:
        """Remove a job whose upload failed, if it is still there."""
        with suppress(NotFound):
            self.delete(job_id)

    def expire(self) -> None:
        """Remove finished jobs past their retention time, and the oldest ones where there are too many."""
        ended = [job for job in self.all() if job.ended]
        oldest = self._now() - self._limits.job_ttl_s
        room = max(self._limits.jobs_kept - 1, 0)
        for i, job in enumerate(ended):
            if self._ended.get(job.id, oldest) < oldest or i >= room:
                with suppress(NotFound):
                    self.delete(job.id)

    # What follows is for the worker.

    def take(self, timeout_s: float) -> Job | None:
        """Start the job that has waited longest; None if none came in time, or the store is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._count(("queued",)), timeout_s)
            if self._closed:
                return None
            found = self._select("WHERE state = 'queued' ORDER BY rowid LIMIT 1")
            if not found:
                return None
            job = found[0]
            self._update(job.id, state="running", attempts=job.attempts + 1)
            self._held = job.id
            return replace(job, state="running", attempts=job.attempts + 1)

    def advance(self, job_id: str, frames: int, total: int | None) -> bool:
        """Record progress; False if the job was removed and must stop."""
        with self._changed:
            if self._closed or not self._select("WHERE id = ?", (job_id,)):
                return False
            self._progress[job_id] = (frames, total)
            return True

    def release(self, job_id: str, state: State, **values: Any) -> None:
        """Record the outcome of a running job; ``queued`` puts it back for the next server.

        To be called again where it raises SinkError.
        """
        with self._changed:
            self._held = None
            done = self._progress.get(job_id)
            if done is not None and state != "queued":
                values = {"frames": done[0], "total": done[1], **values}
            there = self._update(job_id, state=state, **values)
            self._progress.pop(job_id, None)
            if not there:
                shutil.rmtree(self.folder / job_id, ignore_errors=True)
            else:
                if state in _ENDED:
                    self._ended[job_id] = self._now()
                self._tidy(job_id, state)
            self._changed.notify_all()
        if there and state in _ENDED:
            self._metrics.job_ended(state)

    def close(self) -> None:
        """Close the database; ``take`` and ``advance`` tell the worker to end first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._held is None, timeout=30)
            self._db.close()

    def _tidy(self, job_id: str, state: State) -> None:
        """Remove the files that a job no longer needs: partial results, an upload that has been processed."""
        kept = {"queued": {"input"}, "done": {name for name, _ in RESULTS.values()}, "failed": set[str]()}.get(state)
        folder = self.folder / job_id
        if kept is None or not folder.is_dir():
            return
        for path in folder.iterdir():
            if path.name not in kept:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _count(self, states: Sequence[str]) -> int:
        marks = ", ".join("?" * len(states))
        with self._changed:
            if self._closed:
                return 0
            return int(self._db.execute(f"SELECT COUNT(*) FROM jobs WHERE state IN ({marks})", states).fetchone()[0])

    def _select(self, where: str, values: Sequence[Any] = ()) -> list[Job]:
        with self._changed, closing(self._db.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values)) as rows:
            return [self._job(row) for row in rows]

    def _job(self, row: tuple[Any, ...]) -> Job:
        values = dict(zip(_COLUMNS.split(", "), row, strict=True))
        job = Job(**{**values, "options": Options(**json.loads(values["options"]))})
        frames, total = self._progress.get(job.id, (job.frames, job.total))
        return replace(job, frames=frames, total=total)

    def _update(self, job_id: str, **values: Any) -> bool:
        """Update a row; False if there is none."""
        values = {**values, "updated": time.time()}
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._changed:
            changed = self._write(f"UPDATE jobs SET {columns} WHERE id = ?", (*values.values(), job_id))
            self._changed.notify_all()
            return changed > 0

    def _write(self, statement: str, values: Sequence[Any]) -> int:
        """Write to the database; return the number of rows that changed."""
        try:
            with self._db:
                return self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise SinkError(f"the job database cannot be written: {error}") from None


def _is_options(text: str) -> bool:
    """Return whether ``text`` is JSON that `Options` of this version accepts."""
    try:
        Options.model_validate_json(text)
    except ValidationError:
        return False
    return True


def _unknown(job_id: str) -> Problem:
    return NotFound("there is no such job; finished ones are removed after a while")


def _printable(name: str) -> str:
    """Return a client's file name as one short line without folders: it is shown and never opened."""
    name = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:120].strip() or "video"
