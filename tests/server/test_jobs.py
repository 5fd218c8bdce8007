"""The store of jobs by itself: states, restarts, limits, files."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perception.errors import SinkError, SourceError
from perception.server.inference.models import Models
from perception.server.inference.scheduler import Scheduler
from perception.server.jobs import worker
from perception.server.jobs.store import ATTEMPTS, JobStore
from perception.server.metrics import Metrics
from perception.server.options import Options
from perception.server.problems import Busy, Conflict, NotFound
from perception.server.settings import Limits
from tests.server.clocks import ManualClock
from tests.server.waiting import wait_for


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    made = JobStore(tmp_path / "jobs", Limits(jobs_waiting=3, jobs_kept=5), Metrics())
    yield made
    made.close()


def upload(store: JobStore, data: bytes, name: str = "clip.mp4") -> str:
    job = store.create(name, Options(opacity=0.25, classes=("red",)))
    store.input(job.id).write_bytes(data)
    return store.queue(job.id).id


def reopened(store: JobStore, **limits: Any) -> JobStore:
    store.close()
    return JobStore(store.folder, Limits(**limits), Metrics())


def test_states(store: JobStore, clip: bytes) -> None:
    job = store.create("a.mp4", Options())
    assert job.state == "receiving"
    store.input(job.id).write_bytes(clip)
    assert store.queue(job.id).state == "queued"
    with pytest.raises(Conflict, match="queued"):
        store.result(job.id, "video")
    taken = store.take(1)
    assert taken is not None
    assert (taken.id, taken.state, taken.attempts) == (job.id, "running", 1)
    assert store.take(0.01) is None
    assert store.advance(job.id, 3, 40)
    assert (store.get(job.id).frames, store.get(job.id).total) == (3, 40)
    store.output(job.id, "video").write_bytes(b"video")
    (store.folder / job.id / "half-made").write_bytes(b"x")
    store.release(job.id, "done", fps=12.5)
    assert (store.get(job.id).state, store.get(job.id).frames, store.get(job.id).fps) == ("done", 3, 12.5)
    assert store.result(job.id, "video").read_bytes() == b"video"
    with pytest.raises(NotFound, match="gone"):
        store.result(job.id, "jsonl")
    assert [p.name for p in (store.folder / job.id).iterdir()] == ["output.mp4"]  # the upload is worked off


def test_first_come_first_served(store: JobStore, clip: bytes) -> None:
    ids = [upload(store, clip) for _ in range(3)]
    with pytest.raises(Busy, match="limit") as caught:
        store.create("one too many", Options())
    assert (caught.value.status, caught.value.retry_after_s) == (429, 30)
    assert [job.id for job in store.all()] == ids[::-1]
    for id in ids:
        job = store.take(1)
        assert job is not None
        assert job.id == id
        store.release(id, "failed", error="no matter")
    upload(store, clip)


def test_what_is_no_video_is_removed(store: JobStore) -> None:
    job = store.create("a.mp4", Options())
    store.input(job.id).write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"^a\.mp4: not a video"):
        store.queue(job.id)
    assert not (store.folder / job.id).exists()
    with pytest.raises(NotFound):
        store.get(job.id)


def test_a_job_that_is_deleted_while_it_runs(store: JobStore, clip: bytes) -> None:
    id = upload(store, clip)
    store.take(1)
    store.delete(id)
    assert not store.advance(id, 1, 40)  # the worker is told to give up
    assert store.input(id).exists()  # it may still read
    store.release(id, "queued")
    assert not (store.folder / id).exists()


def test_a_restart(store: JobStore, clip: bytes) -> None:
    """What was being received is failed, what ran begins anew with its options, what waited waits, results stay."""
    done, running, waiting = (upload(store, clip, f"{name}.mp4") for name in ("done", "running", "waiting"))
    store.take(1)
    store.output(done, "jsonl").write_text("{}")
    store.release(done, "done", fps=1.0)
    receiving = store.create("receiving", Options()).id
    store.input(receiving).write_bytes(clip[:100])
    assert store.take(1).id == running  # type: ignore[union-attr]
    store.output(running, "video").write_bytes(b"half")
    (store.folder / ("f" * 32)).mkdir()  # of a job that nobody knows
    store._held = None  # the process ends without a word
    again = reopened(store)
    try:
        states = {job.id: job.state for job in again.all()}
        assert states == {done: "done", running: "queued", waiting: "queued", receiving: "failed"}
        assert "send it again" in (again.get(receiving).error or "")
        assert again.get(running).options == Options(opacity=0.25, classes=("red",))
        assert again.result(done, "jsonl").read_text() == "{}"
        assert [p.name for p in (again.folder / running).iterdir()] == ["input"]
        assert list((again.folder / receiving).iterdir()) == []
        assert not (again.folder / ("f" * 32)).exists()
        job = again.take(1)
        assert job is not None
        assert (job.id, job.attempts) == (running, 2)
    finally:
        again._held = None
        again.close()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """The operator may name a folder that has a ``jobs`` of its own."""
    own = tmp_path / "jobs" / "2026" / "offers"
    own.mkdir(parents=True)
    (own / "letter.txt").write_text("dear")
    JobStore(tmp_path / "jobs", Limits(), Metrics()).close()
    assert (own / "letter.txt").read_text() == "dear"


def test_options_of_another_version(store: JobStore, clip: bytes) -> None:
    """The server starts; a job that waits is failed, one that is done keeps its results."""
    done, waiting, good = (upload(store, clip) for _ in range(3))
    assert store.take(1).id == done  # type: ignore[union-attr]
    store.output(done, "jsonl").write_text("{}")
    store.release(done, "done")
    with store._db:
        store._db.execute("UPDATE jobs SET options = '{\"hue\": 1}' WHERE id != ?", (good,))
    again = reopened(store)
    try:
        assert {job.id: job.state for job in again.all()} == {done: "done", waiting: "failed", good: "queued"}
        assert "another version" in (again.get(waiting).error or "")
        assert again.result(done, "jsonl").read_text() == "{}"
        assert again.get(good).options == Options(opacity=0.25, classes=("red",))
    finally:
        again.close()


def test_a_data_base_that_cannot_be_written(
    tmp_path: Path, clip: bytes, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    """On a full disk, say: what asks is told so; the worker goes on when it can be written again, and loses nothing."""
    monkeypatch.setattr(worker, "AGAIN_S", 0.01)
    began, go_on = threading.Event(), threading.Event()

    class Slow(Models):
        def scheduler(self, name: str | None = None) -> Scheduler:
            began.set()
            go_on.wait(30)
            return super().scheduler(name)

    store = JobStore(tmp_path / "jobs", Limits(), Metrics())
    first, second = upload(store, clip), upload(store, clip)
    models = Slow(make(), Metrics())
    working = worker.Worker(store, models, Metrics(), Limits())
    working.start()
    try:
        assert began.wait(30)
        receiving = store.create("a.mp4", Options()).id
        store.input(receiving).write_bytes(clip)
        store._db.execute("PRAGMA query_only = ON")
        with pytest.raises(SinkError, match="cannot be written"):
            store.queue(receiving)
        with pytest.raises(SinkError, match="cannot keep another job"):
            store.create("b.mp4", Options())
        assert {p.name for p in store.folder.iterdir() if p.is_dir()} == {first, second, receiving}
        go_on.set()
        wait_for(lambda: store.get(first).frames == 40)
        assert store.get(first).state == "running"
        store._db.execute("PRAGMA query_only = OFF")
        wait_for(lambda: store.get(second).state == "done")
        assert (store.get(first).state, store.get(first).frames) == ("done", 40)
    finally:
        go_on.set()
        working.close()
        store.close()
        models.close()


def test_a_job_that_ends_the_server_is_not_tried_for_ever(store: JobStore, clip: bytes) -> None:
    id = upload(store, clip)
    for _ in range(ATTEMPTS):
        assert store.take(1).id == id  # type: ignore[union-attr]
        store._held = None
        store = reopened(store)
    assert store.get(id).state == "failed"
    assert "in the middle of it" in (store.get(id).error or "")
    assert store.take(0.01) is None
    store.close()


def test_time_to_live(tmp_path: Path, clip: bytes) -> None:
    clock = ManualClock()
    store = JobStore(tmp_path / "kept", Limits(), Metrics(), clock=clock)
    old, waiting = upload(store, clip), upload(store, clip)
    store.take(1)
    store.release(old, "done")
    clock.advance(Limits().job_ttl_s - 1)
    store.expire()
    assert store.get(old).state == "done"
    clock.advance(2)
    store.expire()
    assert [job.id for job in store.all()] == [waiting]  # what nobody worked on does not expire
    assert not (store.folder / old).exists()
    store.close()


@pytest.mark.parametrize("days", [-400, 400], ids=["back", "ahead"])
def test_a_machine_whose_time_is_set_keeps_its_jobs_and_their_order(
    tmp_path: Path, clip: bytes, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    clock = ManualClock()
    store = JobStore(tmp_path / "kept", Limits(), Metrics(), clock=clock)
    done, first = upload(store, clip), upload(store, clip)
    store.take(1)
    store.release(done, "done")
    now = time.time()
    monkeypatch.setattr("perception.server.jobs.store.time.time", lambda: now + days * 86400)
    second = upload(store, clip)  # looks for old jobs, too
    assert [job.id for job in store.all()] == [second, first, done]
    assert store.take(1).id == first  # type: ignore[union-attr]
    store.release(first, "done")
    clock.advance(Limits().job_ttl_s + 1)
    store.expire()
    assert [job.id for job in store.all()] == [second]
    store.close()


def test_jobs_of_an_earlier_server_are_as_old_as_they_say(
    store: JobStore, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = upload(store, clip)
    store.take(1)
    store.release(id, "done")
    now = time.time()
    for ahead, there in ((-400 * 86400, True), (1000, True), (Limits().job_ttl_s + 1, False)):
        monkeypatch.setattr("perception.server.jobs.store.time.time", lambda ahead=ahead: now + ahead)
        store = reopened(store)
        store.expire()
        assert bool(store.all()) == there
    store.close()


def test_the_oldest_results_make_room(store: JobStore, clip: bytes) -> None:
    ids = []
    for _ in range(7):
        ids.append(upload(store, clip))
        store.take(1)
        store.release(ids[-1], "done")
    store.expire()
    assert [job.id for job in store.all()] == ids[:-5:-1]
    assert {p.name for p in store.folder.iterdir() if p.is_dir()} == set(ids[-4:])


def test_two_servers_do_not_share_a_folder(store: JobStore) -> None:
    with pytest.raises(SinkError, match="another server"):
        JobStore(store.folder, Limits(), Metrics())


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SinkError, match="cannot be used"):
        JobStore(tmp_path / "file", Limits(), Metrics())
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "jobs.sqlite3").write_bytes(b"no data base, but long enough to be taken for one" * 50)
    with pytest.raises(SinkError, match="cannot be used"):
        JobStore(tmp_path / "jobs", Limits(), Metrics())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../a b.mp4", "a b.mp4"),
        ("C:\\videos\\a.mp4", "a.mp4"),
        ("a\n\x1b[31mb\u202e.mp4", "a[31mb.mp4"),
        ("", "video"),
        ("/", "video"),
        ("x" * 500, "x" * 120),
    ],
)
def test_names_are_for_people(store: JobStore, name: str, shown: str) -> None:
    assert store.create(name, Options()).name == shown


def test_many_threads(store: JobStore, clip: bytes) -> None:
    """Each job is taken once, whoever asks, and none is lost."""
    taken: list[str] = []
    faults: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        try:
            while not stop.is_set():
                for job in store.all():
                    try:
                        store.get(job.id)
                        store.advance(job.id, 1, 2)
                    except NotFound:
                        pass
        except BaseException as error:
            faults.append(error)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for thread in lookers:
        thread.start()
    ids = []
    for _ in range(20):
        ids.append(upload(store, clip))
        job = store.take(5)
        assert job is not None
        taken.append(job.id)
        store.release(job.id, "done")
    stop.set()
    for thread in lookers:
        thread.join(30)
    assert faults == []
    assert taken == ids
