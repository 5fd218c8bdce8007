"""Choosing a sink, and refusing what cannot work before any work is done."""

import os
from pathlib import Path

import pytest

from perception.errors import PerceptionError, SinkError, UsageError
from perception.sinks import Sink, open_sink
from perception.sinks.coco import CocoSink
from perception.sinks.counts import CountsSink
from perception.sinks.csv import CsvSink
from perception.sinks.images import ImageSink
from perception.sinks.jsonl import JsonLinesSink
from perception.sinks.masks import MaskSink
from perception.sinks.panoptic import PanopticSink
from perception.sinks.parquet import ParquetSink
from perception.sinks.picture import PictureSink
from perception.sinks.video import VideoSink
from tests.sinks.samples import card, info, pictures, prediction


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        *((f"a.{s}", None, VideoSink) for s in ("mp4", "MP4", "m4v", "mov", "mkv", "webm")),
        ("a.jsonl", None, JsonLinesSink),
        ("a.ndjson", None, JsonLinesSink),
        ("a.json", None, CocoSink),
        ("a.csv", None, CsvSink),
        ("a.parquet", None, ParquetSink),
        *((f"a.{s}", None, PictureSink) for s in ("jpg", "JPEG", "png", "webp")),
        ("a.csv", "counts", CountsSink),
        ("a/", None, ImageSink),
        ("a.mp4/", None, ImageSink),
        ("a", "masks", MaskSink),
        ("a", "panoptic", PanopticSink),
        ("a.dat", "jsonl", JsonLinesSink),
        ("frames", "images", ImageSink),
    ],
)
def test_name_or_kind_choose(tmp_path: Path, name: str, kind: str | None, expected: type[Sink]) -> None:
    sink = open_sink(f"{tmp_path}/{name}", kind=kind)
    assert type(sink) is expected
    assert list(tmp_path.iterdir()) == [], "choosing writes nothing"


def test_an_existing_folder_takes_pictures(tmp_path: Path) -> None:
    assert type(open_sink(tmp_path)) is ImageSink


@pytest.mark.parametrize(("kind", "expected"), [(None, JsonLinesSink), ("csv", CsvSink), ("video", VideoSink)])
def test_standard_output(kind: str | None, expected: type[Sink]) -> None:
    assert type(open_sink("-", kind=kind)) is expected
    assert type(open_sink("-", format="mkv")) is VideoSink


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.xyz", {}, r"a\.xyz: the file extension chooses .* \.mp4"),
        ("a", {}, "the file extension chooses"),
        ("a.heic", {}, r"the file extension chooses .* \.jpg"),
        ("a.mp4", {"crg": 1}, "no option crg; did you mean 'crf'"),
        ("a.csv", {"masks": True}, "kind csv has no option masks"),
        ("a.mp4", {"kind": "vidoe"}, "did you mean 'video'"),
        ("-", {"kind": "parquet"}, "cannot be written to a pipe"),
        ("a.gif", {"kind": "video"}, "mp4, m4v, mov, mkv, webm, not as gif"),
        ("a.mp4", {"codec": "h263x"}, "no video encoder h263x here; there are h264"),
        ("a.mp4", {"codec": "aac"}, "does not encode video"),
        ("a.webm", {"codec": "h264"}, "WebM supports vp8, vp9, av1"),
        ("a.mp4", {"threads": 0}, "at least one thread"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_sink(name if name == "-" else f"{tmp_path}/{name}", **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_options_that_are_none_are_not_given(tmp_path: Path) -> None:
    assert type(open_sink(tmp_path / "a.csv", masks=None, codec=None)) is CsvSink


NAMES = ("a.mp4", "a.mkv", "a.jsonl", "a.json", "a.csv", "a.parquet")


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_file_is_kept_or_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"precious" * 10)
    with pytest.raises(UsageError, match=r"the file exists; .*overwrite=True"):
        open_sink(path)
    assert path.read_bytes() == b"precious" * 10
    with open_sink(path, overwrite=True) as sink:
        sink.open(info(), card())
        for index in range(3):
            sink.write(prediction(index))
    assert b"precious" not in path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", [*NAMES, "a/"])
def test_missing_folders_are_made(tmp_path: Path, name: str) -> None:
    with open_sink(f"{tmp_path}/new/deep/{name}") as sink:
        sink.open(info(), card())
        sink.write(prediction(0))
    assert (tmp_path / "new" / "deep" / name).exists()


@pytest.mark.parametrize("name", [*NAMES, "a/"])
def test_a_folder_that_is_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PerceptionError, match=r"is a file, not a folder|a part of this path is a file"):
        open_sink(f"{tmp_path}/file/{name}")


@pytest.mark.parametrize("name", [*NAMES, "a/"])
def test_a_folder_that_may_not_be_written(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.access(locked, os.W_OK):  # the superuser may: let the system say what it says to others
        monkeypatch.setattr(os, "access", lambda path, mode, **_: Path(path) != locked)
    with pytest.raises(SinkError, match="no permission to write into the folder") as caught:
        open_sink(f"{locked}/{name}")
    assert str(locked) in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.parquet"])
def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    sink = open_sink(path)
    path.write_text("precious")
    with pytest.raises(PerceptionError, match="created by another program meanwhile"), sink:
        sink.open(info(), card())
        sink.write(prediction(0))
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path, name: str) -> None:
    # nor is a device: to the superuser /dev/null would be lost
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="a device or a pipe"):
        open_sink(tmp_path / name, overwrite=True)
    assert (tmp_path / name).is_fifo()


@pytest.mark.parametrize("name", NAMES)
def test_a_link_stays_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "there" / name)
    (tmp_path / "there" / name).write_text("old")
    with open_sink(tmp_path / name, overwrite=True) as sink:
        sink.open(info(), card())
        sink.write(prediction(0))
    assert (tmp_path / name).is_symlink()
    assert b"old" not in (tmp_path / "there" / name).read_bytes()
    assert [p.name for p in (tmp_path / "there").iterdir()] == [name]


@pytest.mark.parametrize("kind", ["jsonl", "video", "coco", "images", "masks", "panoptic", None])
def test_a_name_that_is_too_long_is_a_sinks_error(tmp_path: Path, kind: str | None) -> None:
    with pytest.raises(SinkError, match="too long"):
        open_sink(tmp_path / ("n" * 300 + ".mp4"), kind=kind)


def test_a_colon_makes_no_protocol_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_sink("at-10:30:00.mp4") as sink:
        sink.open(info(), card())
        sink.write(prediction(0))
    assert [p.name for p in tmp_path.iterdir()] == ["at-10:30:00.mp4"]
    assert len(pictures(tmp_path / "at-10:30:00.mp4")) == 1


@pytest.mark.parametrize("kind", ["jsonl", "csv", "video"])
def test_standard_output_that_is_closed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)  # what Python makes of `>&-`
    sink = open_sink("-", kind=kind)
    with pytest.raises(SinkError, match="standard output: it is closed"):
        sink.open(info(), card())
        sink.write(prediction(0))
    sink.abort()


@pytest.mark.parametrize("name", NAMES)
def test_closing_and_aborting_twice_or_without_opening(tmp_path: Path, name: str) -> None:
    sink = open_sink(tmp_path / name)
    sink.close()
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    sink.open(info(), card())
    sink.write(prediction(0))
    sink.close()
    size = (tmp_path / name).stat().st_size
    sink.close()
    sink.abort()
    assert (tmp_path / name).stat().st_size == size
    assert [p.name for p in tmp_path.iterdir()] == [name]
