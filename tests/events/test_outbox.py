"""The outbox: nothing is lost over restarts and kills, its size is bounded, and a full disk loses nothing."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from perception.errors import UsageError
from perception.events import outbox as module
from perception.events.outbox import Outbox
from tests.events.receivers import letter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events" / "outbox.sqlite"


def ids(box: Outbox, target: str = "a") -> list[str]:
    return [one.id for one in box.take(target, 10**6)]


def test_events_stay_until_each_target_has_them(path: Path) -> None:
    letters = [letter(i) for i in range(5)]
    box = Outbox(path)
    box.add(letters, ["a", "b"])
    box.add(letters, ["a", "b"])  # the same ids are the same events
    assert box.take("a", 3) == letters[:3]
    box.done("a", [one.id for one in letters[:3]])
    box.close()
    box = Outbox(path)
    assert box.take("a", 10) == letters[3:] and box.take("b", 10) == letters
    assert (box.pending("a"), box.pending("b"), box.pending("c")) == (2, 5, 0)
    assert box.counters("a") == {"delivered": 3, "dropped": 0, "refused": 0}
    box.done("a", [one.id for one in letters])
    box.done("b", [one.id for one in letters], "refused")
    assert box.pending("a") == box.pending("b") == 0 and box.counters("b")["refused"] == 5
    box.close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT (SELECT count(*) FROM event) + (SELECT count(*) FROM pending)").fetchone() == (
            0,
        )


@pytest.mark.parametrize("seed", range(8))
def test_it_is_a_set_of_queues(path: Path, seed: int) -> None:
    """Against a model made of lists, with restarts in between."""
    rng = random.Random(seed)
    box, model = Outbox(path), {"a": [], "b": [], "c": []}
    for step in range(120):
        what = rng.random()
        target = rng.choice("abc")
        if what < 0.4:
            new, targets = (
                [letter(step * 10 + i) for i in range(rng.randint(0, 3))],
                rng.sample("abc", rng.randint(0, 3)),
            )
            box.add(new, targets)
            for name in targets:
                model[name] += [one.id for one in new]
        elif what < 0.85:
            done = rng.sample(model[target], min(len(model[target]), rng.randint(0, 4)))
            box.done(target, done)
            model[target] = [one for one in model[target] if one not in done]
        elif what < 0.95:
            assert [one.id for one in box.take(target, 3)] == model[target][:3]
        else:
            box.close()
            box = Outbox(path)
        assert box.pending(target) == len(model[target])
    assert {name: ids(box, name) for name in "abc"} == model
    box.close()


def test_the_oldest_are_dropped_and_counted(path: Path) -> None:
    letters = [letter(i) for i in range(400)]
    size = len(letters[0].body) + module.ROW_BYTES
    box = Outbox(path, limit_bytes=100 * size)
    for at in range(0, 400, 7):
        box.add(letters[at : at + 7], ["a", "b"])
        box.done("b", [one.id for one in letters[at : at + 7]])
    kept = ids(box)
    assert kept == [one.id for one in letters[-len(kept) :]] and 90 <= len(kept) <= 100
    assert box.counters("a")["dropped"] == 400 - len(kept) and box.counters("b")["dropped"] == 0
    box.close()
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 4 * 100 * size


def test_only_one_process_has_it(path: Path) -> None:
    box = Outbox(path)
    with pytest.raises(UsageError, match="another process delivers events from here"):
        Outbox(path)
    box.close()
    Outbox(path).close()


def test_only_its_owner_reads_it(path: Path) -> None:
    box = Outbox(path)
    box.add([letter()], ["a"])
    assert all(
        file.stat().st_mode & 0o077 == 0 for file in path.parent.glob("outbox.sqlite*") if file.suffix != ".lock"
    )
    box.close()


def test_a_damaged_file_is_kept_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    box = Outbox(path)
    box.add([letter()], ["a"])
    assert len(ids(box)) == 1
    box.close()
    assert [f.read_bytes()[:11] for f in path.parent.glob("*.damaged-*")] == [b"no database"]
    assert "damaged" in caplog.text


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="outbox of events cannot be made"):
        Outbox(tmp_path / "file" / "outbox.sqlite")


def test_a_full_disk_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    letters = [letter(i) for i in range(300)]
    box = Outbox(path)
    pages = box._database.execute("PRAGMA page_count").fetchone()[0]
    box._database.execute(f"PRAGMA max_page_count = {pages + 10}")  # SQLite's own limit, and its own error
    for one in letters[:200]:
        box.add([one], ["a"])
    assert "full" in box.problem and caplog.text.count("kept in memory") == 1
    assert ids(box) == [one.id for one in letters[:200]] and box.pending("a") == 200
    box.done("a", [one.id for one in letters[:60]] + [letters[150].id])  # some on the disk, one in memory
    box._database.execute("PRAGMA max_page_count = 1000000")
    box.add(letters[200:], ["a"])
    left = [one.id for i, one in enumerate(letters) if i >= 60 and i != 150]
    assert ids(box) == left and box.problem == ""
    box.close()
    box = Outbox(path)
    assert ids(box) == left
    box.close()


_WRITER = """
import sys
from pathlib import Path
from perception.events.outbox import Outbox
from tests.events.receivers import letter
box = Outbox(Path(sys.argv[1]))
number = 0
while True:
    one = letter(number, id=f"{sys.argv[2]}-{number}")
    box.add([one], ["a"])
    print(one.id, flush=True)
    number += 1
"""


def test_what_was_added_survives_a_kill(path: Path) -> None:
    told: list[str] = []
    for number in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ},
        )
        assert process.stdout is not None
        told += [process.stdout.readline().strip() for _ in range(20 + 13 * number)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
        process.wait()
    box = Outbox(path)
    found = ids(box)
    box.close()
    assert set(told) <= set(found) and len(found) == len(set(found)) <= len(told) + 3
