"""Which sources make which outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.annotate import Outputs, expand, plan, stem
from perception.errors import UsageError


def outputs_of(sources: list[str], **outputs: str) -> list[dict[str, str]]:
    return [result.outputs for result in plan(sources, Outputs(**outputs))]


def test_one_source_one_file() -> None:
    assert outputs_of(["a.mp4"], video="x.mkv", jsonl="-", masks="m") == [
        {"video": "x.mkv", "jsonl": "-", "masks": "m"}
    ]


def test_folder_outputs_are_named_after_the_source() -> None:
    assert outputs_of(["dir/a.b.mp4"], video="out/", jsonl="out/") == [
        {"video": "out/a.b.mp4", "jsonl": "out/a.b.jsonl"}
    ]


def test_several_sources_make_several_outputs_and_never_the_same_twice() -> None:
    assert outputs_of(["x/a.mp4", "y/a.mkv", "b.mp4"], video="out", masks="m") == [
        {"video": "out/a.mp4", "masks": "m/a"},
        {"video": "out/a-2.mp4", "masks": "m/a-2"},
        {"video": "out/b.mp4", "masks": "m/b"},
    ]


def test_images_in_a_folder_become_images() -> None:
    assert outputs_of(["a.png"], video="out/") == [{"images": "out/"}]
    assert outputs_of(["a.png"], video="a.mp4") == [{"video": "a.mp4"}]


@pytest.mark.parametrize("path", ["out.mp4", "-"])
def test_several_sources_need_a_folder(path: str) -> None:
    with pytest.raises(UsageError, match="folder"):
        plan(["a.mp4", "b.mp4"], Outputs(video=path))


def test_no_output_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing to write"):
        plan(["a.mp4"], Outputs())


def test_a_folder_of_videos_is_its_videos(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").touch()
    assert expand([str(tmp_path), "c.mp4"]) == [str(tmp_path / "a.MKV"), str(tmp_path / "b.mp4"), "c.mp4"]
    assert expand([str(tmp_path / "images")]) == [str(tmp_path / "images")]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("0", "camera0"),
        ("-", "stdin"),
        ("/dev/video2", "video2"),
        ("a b/c d.mp4", "c_d"),
        ("rtsp://user:secret@cam.example:554/live/main.sdp", "cam.example_live_main"),
        ("synthetic:?size=64x48", "synthetic"),
        ("frames/*.png", "source"),
    ],
)
def test_stem(source: str, name: str) -> None:
    assert stem(source) == name
