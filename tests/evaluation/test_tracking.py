"""HOTA, MOTA and IDF1 against an independent implementation, on random tracks of every kind of fault."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from perception.commands.main import app
from perception.errors import UsageError
from perception.evaluation.tracking import combine, evaluate_tracking, measure_tracking
from perception.tracking.mot_text import MotText, read_mot

Row = tuple[float, ...]


def walkers(rng: np.random.Generator, frames: int, count: int, classes: bool) -> list[Row]:
    """Truth: people who walk about, come late and leave; some do not count, some are of another class."""
    rows: list[Row] = []
    for identity in range(1, count + 1):
        begin = int(rng.integers(1, frames // 2 + 1))
        end = int(rng.integers(begin, frames + 1))
        place, step = rng.uniform(0, 400, 2), rng.normal(0, 4, 2)
        size = rng.uniform(20, 80, 2)
        counted = int(rng.random() > 0.15)
        kind = int(rng.choice([1, 1, 1, 2, 7, 8, 12, 3])) if classes else 1
        for frame in range(begin, end + 1):
            place = place + step + rng.normal(0, 1, 2)
            rows.append((frame, identity, *place.round(2), *size.round(2), counted, kind, 1.0))
    return rows


def tracked(rng: np.random.Generator, truth: list[Row]) -> list[Row]:
    """Results with missing and false boxes, inexact ones, identities that change or swap, and boxes without one."""
    rows: list[Row] = []
    renamed: dict[int, int] = {}
    fresh = 1000
    for row in sorted(truth):
        identity = int(row[1])
        if rng.random() < 0.03:
            renamed[identity] = fresh = fresh + 1
        if rng.random() < 0.15:
            continue
        box = np.array(row[2:6]) + rng.normal(0, 4, 4)
        box[2:] = np.maximum(box[2:], 3)
        name = -1 if rng.random() < 0.03 else renamed.get(identity, identity)
        rows.append((row[0], name, *box.round(2), round(rng.random(), 3), -1, -1, -1))
    for _ in range(len(truth) // 10):
        fresh += 1
        frame = int(rng.integers(1, int(max(r[0] for r in truth)) + 4))
        rows.append((frame, fresh, *rng.uniform(0, 400, 2).round(2), *rng.uniform(20, 80, 2).round(2), 0.5, -1, -1, -1))
    return rows


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(",".join(f"{value:g}" for value in row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("seed", range(24))
def test_equals_the_reference(tmp_path: Path, seed: int) -> None:
    reference = pytest.importorskip("trackers.eval", reason="make test installs it")
    rng = np.random.default_rng(seed)
    truth = walkers(rng, frames=int(rng.integers(2, 60)), count=int(rng.integers(1, 14)), classes=seed % 2 == 1)
    if not any(row[6] and row[7] == 1 for row in truth):
        truth.append((1, 99, 5, 5, 30, 30, 1, 1, 1))
    gt, found = write(tmp_path / "gt.txt", truth), write(tmp_path / "mot.txt", tracked(rng, truth))
    expected = reference.evaluate_mot_sequence(gt, found, metrics=["CLEAR", "HOTA", "Identity"])
    ours = evaluate_tracking(gt, found)
    assert (ours.hota, ours.deta, ours.assa, ours.loca) == pytest.approx(
        (expected.HOTA.HOTA, expected.HOTA.DetA, expected.HOTA.AssA, expected.HOTA.LocA), abs=1e-6
    )
    assert ours.mota == pytest.approx(expected.CLEAR.MOTA, abs=1e-6)
    assert ours.switches == expected.CLEAR.IDSW
    assert (ours.clear_missed, ours.clear_false) == (expected.CLEAR.CLR_FN, expected.CLEAR.CLR_FP)
    assert ours.idf1 == pytest.approx(expected.Identity.IDF1, abs=1e-6)


def test_several_sequences_equal_the_reference(tmp_path: Path) -> None:
    reference = pytest.importorskip("trackers.eval", reason="make test installs it")
    rng = np.random.default_rng(7)
    for folder in ("truth", "found"):
        (tmp_path / folder).mkdir()
    ours = []
    for name in ("a", "b", "c"):
        truth = walkers(rng, 40, 8, classes=True)
        gt = write(tmp_path / "truth" / f"{name}.txt", truth)
        found = write(tmp_path / "found" / f"{name}.txt", tracked(rng, truth))
        ours.append(evaluate_tracking(gt, found, name))
    metrics = ["CLEAR", "HOTA", "Identity"]
    expected = reference.evaluate_mot_sequences(tmp_path / "truth", tmp_path / "found", metrics=metrics).aggregate
    both = combine(ours)
    assert (both.hota, both.mota, both.idf1) == pytest.approx(
        (expected.HOTA.HOTA, expected.CLEAR.MOTA, expected.Identity.IDF1), abs=1e-6
    )


def rows(*values: Row) -> MotText:
    table = np.array(values, np.float64).reshape(-1, 8)
    return MotText(
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), np.ascontiguousarray(table[:, 2:6]), table[:, 6],
        table[:, 7].astype(np.int64),
    )  # fmt: skip


def line(track: int, frames: range) -> list[Row]:
    return [(frame, track, 10.0 * frame, 0, 40, 40, 1, 1) for frame in frames]


def test_perfect_and_half() -> None:
    truth = rows(*line(1, range(1, 11)))
    perfect = measure_tracking(truth, rows(*line(7, range(1, 11))))
    assert (perfect.hota, perfect.mota, perfect.idf1, perfect.switches) == (1, 1, 1, 0)
    # the identity changes in the middle: every box is right, half of the identity is
    half = measure_tracking(truth, rows(*line(7, range(1, 6)), *line(8, range(6, 11))))
    assert (half.deta, half.switches) == (1, 1)
    assert half.assa == pytest.approx(0.5)
    assert half.hota == pytest.approx(math.sqrt(0.5))
    assert half.idf1 == pytest.approx(0.5)
    assert half.mota == pytest.approx(0.9)


def test_nothing_found_and_nothing_true() -> None:
    truth, none = rows(*line(1, range(1, 6))), rows()
    for ours in (measure_tracking(truth, none), measure_tracking(none, truth), measure_tracking(none, none)):
        assert (ours.hota, ours.mota, ours.idf1) == (0, 0, 0)
    assert measure_tracking(truth, none).clear_missed == 5
    assert measure_tracking(none, truth).clear_false == 5


def test_an_identity_twice_in_a_frame_is_told() -> None:
    truth = rows(*line(1, range(1, 4)))
    with pytest.raises(UsageError, match="frame 2 has the identity 5 more than once"):
        measure_tracking(truth, rows((2, 5, 0, 0, 9, 9, 1, 1), (2, 5, 20, 0, 9, 9, 1, 1)), where="mot.txt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,1,5,5,9\n", "line 1 has 5 columns"),
        ("1,1,5,5,9,9,1\n2,1,5,five,9,9,1\n", "line 2 has something else than numbers"),
        ("0,1,5,5,9,9,1\n", "line 1: frames are counted from 1"),
        ("1.5,1,5,5,9,9,1\n", "frames are counted from 1"),
        ("1,1,nan,5,9,9,1\n", "line 1 has a number that is not finite"),
        ("1,1,5,5,-9,9,1\n", "must not be negative"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_bad_files_are_told_by_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = tmp_path / "mot.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=words) as raised:
        read_mot(path)
    assert "mot.txt" in str(raised.value)
    with pytest.raises(UsageError, match=r"cannot be read|No such"):
        read_mot(tmp_path / "none.txt")


def test_blanks_or_commas_any_order_of_frames(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("3 2 1 1 5 5\n\n1, 9, 0, 0, 4, 4, 0.5, 3\n")
    read = read_mot(tmp_path / "a.txt")
    assert read.frames.tolist() == [1, 3] and read.ids.tolist() == [9, 2]
    assert read.scores.tolist() == [0.5, 1.0] and read.classes.tolist() == [3, 1]


def test_command(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = walkers(rng, 30, 6, classes=False)
    truth = [(*row[:6], 1, *row[7:]) for row in truth]
    gt, found = write(tmp_path / "gt.txt", truth), write(tmp_path / "mot.txt", tracked(rng, truth))
    command = ["eval", "tracking", "--truth", str(gt), "--results", str(found)]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["sequences"]
    ours = evaluate_tracking(gt, found)
    assert row["HOTA"] == pytest.approx(ours.hota, abs=1e-6) and row["switches"] == ours.switches
    # several: a row each and one for all
    again = CliRunner().invoke(app, [*command, *command[2:], "--json"])
    sequences = json.loads(again.stdout)["sequences"]
    assert len(sequences) == 2 and json.loads(again.stdout)["all"]["switches"] == 2 * ours.switches
    uneven = CliRunner().invoke(app, [*command, "--truth", str(gt)])
    assert isinstance(uneven.exception, UsageError) and "--results" in str(uneven.exception)
