"""JSON Lines, CSV and Parquet: the rows, and what stays of them when writing ends badly."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from perception.errors import SinkError, UsageError
from perception.sinks import open_sink
from tests.sinks.samples import card, class_map, detections, info, prediction, run_script, take_away


def test_a_line_says_all_that_is_known(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:24] = 1
    mask[40:, 10:20] = 2
    found = detections(3, seed=5, tracks=True)
    with open_sink(tmp_path / "out.jsonl", masks=True) as sink:
        sink.open(info(), card(classification=True))
        sink.write(
            prediction(
                7, detections=found, class_map=class_map(mask), labels=[(1, 0.87654)], timings={"infer": 1.23456}
            )
        )
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert record["index"] == 7
    assert record["time"] == 0.28
    assert record["source"] == "synthetic:"
    assert record["size"] == [64, 48]
    assert record["timings"] == {"infer": 1.235}
    assert record["labels"] == [{"class": "night", "class_id": 1, "probability": 0.8765}]
    assert [d["track_id"] for d in record["detections"]] == [100, 101, 102]
    for row, box, score, class_id in zip(record["detections"], found.boxes, found.scores, found.class_ids, strict=True):
        np.testing.assert_allclose(row["box"], box, atol=0.00501)
        assert row["score"] == pytest.approx(float(score), abs=0.000051)
        assert row["class_id"] == class_id
        assert row["class"] == ("car", "person")[class_id]
    assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert record["shares"]["sky"] == pytest.approx((mask == 1).mean(), abs=0.01)
    assert set(record["masks"]) == {"road", "sky", "tree"}
    for class_id, name in enumerate(("road", "sky", "tree")):
        encoded = record["masks"][name]
        decoded = coco.decode({"size": encoded["size"], "counts": encoded["counts"].encode()})
        np.testing.assert_array_equal(decoded, mask == class_id)
    assert len(line) < 1300, "numbers are written with more digits than they have"


def test_ignored_classes_have_a_share_but_no_mask(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:24] = 1
    for name in ("out.jsonl", "out.json"):
        with open_sink(tmp_path / name, masks=True) as sink:
            sink.open(info(), card(detection=False))
            sink.write(prediction(0, class_map=class_map(mask, ignored=(0,))))
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert list(record["masks"]) == ["sky"]
    assert list(record["shares"]) == ["road", "sky"]
    assert [a["category_id"] for a in json.loads((tmp_path / "out.json").read_text())["annotations"]] == [2]


def test_a_line_leaves_out_what_the_model_does_not_give(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.jsonl", masks=True) as sink:
        sink.open(info(), None)
        sink.write(prediction(0, detections=detections(0)))
        sink.write(prediction(1, detections=detections(1)))
    empty, one = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert empty["detections"] == []
    assert not {"shares", "masks", "labels"} & set(empty)
    assert one["detections"][0]["class"] == str(one["detections"][0]["class_id"])
    assert "track_id" not in one["detections"][0]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_lines_are_in_the_file_as_soon_as_they_are_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    sink = open_sink(path)
    sink.open(info(), card())
    for index in range(3):
        sink.write(prediction(index, detections=detections(1)))
        text = path.read_text()
        assert text.endswith("\n")
        assert len(text.splitlines()) == index + (2 if kind == "csv" else 1)
    sink.close()


def test_rows_of_boxes(tmp_path: Path) -> None:
    found = detections(4, seed=2)
    for name in ("out.csv", "out.parquet"):
        with open_sink(tmp_path / name) as sink:
            sink.open(info(), card())
            sink.write(prediction(0, detections=detections(0)))
            sink.write(prediction(1, detections=found))
            sink.write(prediction(2, detections=detections(1, tracks=True), source='a "b", c'))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("source", "index", "time", "x1", "y1", "x2", "y2", "score", "class_id", "class", "track_id")
    ]
    assert len(rows) == 5
    np.testing.assert_allclose(
        [[float(r[c]) for c in ("x1", "y1", "x2", "y2")] for r in rows[:4]], found.boxes, atol=0.006
    )
    assert [r["track_id"] for r in rows] == ["", "", "", "", "100"]
    assert rows[4]["source"] == 'a "b", c'
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == list(rows[0])
    for row, same in zip(table.to_pylist(), rows, strict=True):
        assert row["index"] == int(same["index"])
        assert row["time"] == float(same["time"])
        assert row["class"] == same["class"]
        assert row["score"] == pytest.approx(float(same["score"]))
        assert row["track_id"] == (int(same["track_id"]) if same["track_id"] else None)


def test_rows_of_a_model_that_only_segments_or_classifies(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:12] = 2
    with open_sink(tmp_path / "s.parquet") as sink:
        sink.open(info(), card(detection=False))
        sink.write(prediction(3, class_map=class_map(mask)))
    rows = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert [(r["index"], r["class"]) for r in rows] == [(3, "road"), (3, "tree")]
    np.testing.assert_allclose([r["share"] for r in rows], [0.75, 0.25], atol=0.01)
    with open_sink(tmp_path / "c.csv") as sink:
        sink.open(info(), card(detection=False, segmentation=False, classification=True))
        sink.write(prediction(3, labels=[(1, 0.75), (0, 0.25)]))
    assert (tmp_path / "c.csv").read_text() == (
        "source,index,time,class_id,class,probability\nsynthetic:,3,0.12,1,night,0.75\nsynthetic:,3,0.12,0,day,0.25\n"
    )


def test_parquet_flushes_row_groups(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.parquet") as sink:
        sink.open(info(), card())
        for index in range(200):
            sink.write(prediction(index, detections=detections(300, seed=index)))
    written = pq.ParquetFile(tmp_path / "out.parquet")
    assert written.metadata.num_rows == 60000
    assert written.metadata.num_row_groups >= 3
    assert written.read_row_group(0).num_rows < 17000


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_no_frames_make_a_valid_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    with open_sink(path) as sink:
        sink.open(info(), card())
    if kind == "jsonl":
        assert path.read_bytes() == b""
    elif kind == "csv":
        assert path.read_text().splitlines() == ["source,index,time,x1,y1,x2,y2,score,class_id,class,track_id"]
    else:
        assert pq.read_table(path).num_rows == 0


def test_parquet_does_not_look_finished_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_sink(tmp_path / "out.parquet") as sink:
        sink.open(info(), card())
        sink.write(prediction(0, detections=detections(2)))
        raise RuntimeError
    assert not (tmp_path / "out.parquet").exists()
    assert pq.read_table(tmp_path / "out.parquet.part").num_rows == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_full_disk_is_named(kind: str) -> None:
    sink = open_sink("/dev/full", kind=kind)
    with pytest.raises(SinkError, match="/dev/full: the disk is full"):
        sink.open(info(), card())
        sink.write(prediction(0, detections=detections(1)))
    sink.abort()


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (kind, fault)
        for kind in ("jsonl", "csv", "counts", "mot")
        for fault in ("removed", "folder", "moved", "replaced")
    ]
    + [(kind, fault) for kind in ("coco", "parquet") for fault in ("removed", "folder", "moved")],
)
def test_a_file_that_is_gone_ends_the_run(tmp_path: Path, kind: str, fault: str) -> None:
    path = tmp_path / "folder" / "out.x"
    sink = open_sink(path, kind=kind)
    sink.open(info(), card())
    sink.write(prediction(0, detections=detections(3)))
    there = path if path.exists() else path.with_name("out.x.part")
    take_away(there, fault)
    with pytest.raises(SinkError, match=r"out\.x: .* while it was being written"):
        sink.close()
    sink.abort()


def test_a_file_that_is_gone_is_told_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.sinks.files.PLACE_S", 0.0)
    sink = open_sink(tmp_path / "out.jsonl")
    sink.open(info(), card())
    sink.write(prediction(0))
    (tmp_path / "out.jsonl").unlink()
    with pytest.raises(SinkError, match="moved or removed"):
        sink.write(prediction(1))
    sink.abort()


LIMITED = """
import resource, sys
from perception.errors import SinkError
from perception.sinks import open_sink
from tests.sinks.samples import card, detections, info, prediction
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
sink = open_sink(sys.argv[1])
try:
    with sink:
        sink.open(info(), card())
        for index in range(4000):
            sink.write(prediction(index, detections=detections(5)))
except SinkError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json", "parquet"])
def test_a_file_that_may_not_grow_keeps_whole_entries(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    process = run_script(LIMITED, str(path), stdout=-1)
    assert b"largest size" in process.communicate()[0]
    assert process.returncode == 7
    if kind == "jsonl":
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert [r["index"] for r in records] == list(range(len(records)))
        assert 10 < len(records) < 4000
    elif kind == "csv":
        text = path.read_text()
        assert text.endswith("\n")
        assert {line.count(",") for line in text.splitlines()} == {10}
    else:
        assert not path.exists(), "looks finished"


PIPED = """
import sys
from perception.errors import SinkError
from perception.sinks import open_sink
from tests.sinks.samples import card, detections, info, prediction
try:
    with open_sink("-", **eval(sys.argv[1])) as sink:
        sink.open(info(), card())
        for index in range(20000):
            sink.write(prediction(index, detections=detections(5)))
except SinkError as error:
    sys.stderr.write(str(error))
    sys.exit(7)
"""


@pytest.mark.parametrize("options", ['dict(kind="jsonl")', 'dict(kind="csv")', 'dict(kind="video")'])
def test_a_reader_that_goes_away_ends_it_with_one_line(options: str) -> None:
    process = run_script(PIPED, options, stdout=-1, stderr=-1)
    assert process.stdout is not None
    assert process.stderr is not None
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 7
    assert said.splitlines()[-1] == "standard output: the reader closed the pipe"
    assert "Traceback" not in said


def test_standard_output_gets_nothing_but_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with open_sink("-") as sink:
        sink.open(info(), card())
        for index in range(3):
            sink.write(prediction(index, detections=detections(index)))
    out = capfd.readouterr().out
    assert [len(json.loads(line)["detections"]) for line in out.splitlines()] == [0, 1, 2]
    print("the stream is still open")
    assert capfd.readouterr().out == "the stream is still open\n"


def test_standard_output_without_a_descriptor(capsys: pytest.CaptureFixture[str]) -> None:
    with open_sink("-") as sink:
        sink.open(info(), card())
        sink.write(prediction(0, detections=detections(1)))
    assert json.loads(capsys.readouterr().out)["index"] == 0


def test_the_file_that_is_read_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "same.csv"
    path.write_text("precious")
    for name in (path, tmp_path / "." / "same.csv"):
        sink = open_sink(name, overwrite=True)
        with pytest.raises(UsageError, match="being read"):
            sink.open(info(kind="file", path=str(path)), None)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet", "out.json"])
def test_names_of_sources_may_be_no_utf8(tmp_path: Path, name: str) -> None:
    source = os.fsdecode(b"caf\xe9.mp4")
    with open_sink(tmp_path / name) as sink:
        sink.open(info(uri=source), card())
        sink.write(prediction(0, source=source, detections=detections(2)))
    if name == "out.parquet":
        assert pq.read_table(tmp_path / name)["source"].to_pylist() == [r"caf\udce9.mp4"] * 2
        return
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text.count(r"caf\udce9.mp4") == {"out.jsonl": 1, "out.csv": 2, "out.json": 1}[name]
    if name == "out.jsonl":
        assert os.fsencode(json.loads(text)["source"]) == b"caf\xe9.mp4"
