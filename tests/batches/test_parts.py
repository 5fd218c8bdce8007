"""The manifest, the meter and the choice of files by themselves."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from perception.annotate import Annotation, Outputs, plan
from perception.batch import common_folder, read_list
from perception.batch.made_by import ENCODER_THREADS, differences, fixed, identity
from perception.batch.manifest import Entry, Manifest
from perception.batch.progress import Meter
from perception.commands.reporter import remaining
from perception.errors import UsageError
from perception.sources.choice import Choice

ENTRY = Entry(
    "../in/a.mp4", "a", "done", [5, 7], {"video": "a.mp4"}, "s1", {"video": 9}, 3, {"red": 2}, ["../in/x.jpg"]
)


def test_a_manifest_that_was_cut_anywhere_has_the_lines_before(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.put_settings("s1", {"model": {"name": "m"}})
    entries = [replace(ENTRY, source=f"../in/{i}.mp4", name=str(i)) for i in range(3)]
    for entry in entries:
        manifest.put(entry)
    manifest.put(replace(entries[0], state="publishing"))
    manifest.put(replace(entries[0], frames=4))  # the last line about a source counts
    manifest.close()
    data = manifest.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in random.Random(0).sample(range(ends[0], len(data)), 60):
        manifest.path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        read = Manifest(tmp_path)
        assert len(read.entries) == min(3, max(0, whole - 2)) and (whole < 2 or read.settings.keys() == {"s1"})
    manifest.path.write_bytes(data)
    read = Manifest(tmp_path)
    assert read.entries == {e.source: e for e in (replace(entries[0], frames=4), *entries[1:])}
    read.write([entries[2].source])
    assert [line[:23] for line in read.path.read_text().splitlines()[2:]] == [
        '{"source":"../in/2.mp4"', '{"source":"../in/0.mp4"', '{"source":"../in/1.mp4"',
    ]  # fmt: skip
    assert Manifest(tmp_path).entries == read.entries and Manifest(tmp_path).settings == read.settings


@pytest.mark.parametrize("text", ["x", "[1]\n", '{"manifest":1}\n{"a":2}\n', '{"manifest":1}\nnonsense\n{"a":2}\n'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(UsageError, match="no manifest of a batch"):
        Manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text('{"manifest":2}\n')
    with pytest.raises(UsageError, match="version 2"):
        Manifest(tmp_path)


def test_names_stay_with_their_sources(tmp_path: Path) -> None:
    names = {str(tmp_path / "b" / "x.mp4"): "x", "synthetic:?frames=2": "scene"}
    sources = [f"{tmp_path}/a/x.mp4", f"{tmp_path}/b/x.mp4", "synthetic:?frames=2", f"{tmp_path}/a/x.mp4"]
    made = plan(sources, Outputs(video="out/", masks="masks"), names=names)
    assert [(Path(r.source).name, r.name) for r in made] == [
        ("x.mp4", "x-2"), ("x.mp4", "x"), ("synthetic:?frames=2", "scene"),
    ]  # fmt: skip
    kept = plan(sources[:3], Outputs(video="out/"), root=tmp_path)
    assert [r.outputs["video"] for r in kept] == ["out/a/x.mp4", "out/b/x.mp4", "out/synthetic.mp4"]
    (alone,) = plan(sources[:1], Outputs(masks="masks"), names={})
    assert alone.outputs == {"masks": "masks/x"}  # as it would be among others


def test_outputs_do_not_depend_on_how_many_processes_there_are() -> None:
    made = [fixed(Annotation(sink_options={"video": {"crf": 30}}), jobs) for jobs in (1, 2, 64)]
    assert {one.sink_options["video"]["threads"] for one in made} == {ENCODER_THREADS}
    assert all(one.threads is not None and one.threads >= 1 for one in made)
    before = {"model": {"sha256": "1"}, "settings": {"a": 1, "options": {"nms": "x", "iou": None}}, "perception": "1"}
    now = {"model": {"sha256": "2"}, "settings": {"a": 1, "options": {"nms": "y", "iou": None}}, "perception": "2"}
    assert differences(before, now) == ["model sha256", "options nms"] and identity(before) != identity(now)
    assert identity(before) == identity({**before, "perception": "2"})


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        ([], [], "a.mp4 raw/a.mp4 cam/raw/b.MP4 cam/c.mkv"),
        (["*.mp4"], [], "a.mp4 raw/a.mp4"),
        ([], ["raw"], "a.mp4 cam/c.mkv"),
        (["cam/*"], ["*.mkv"], "cam/raw/b.MP4"),
        (["raw", "c.*"], ["cam/raw/*"], "raw/a.mp4 cam/c.mkv"),
        (["cam/raw"], [], ""),
        (["/*"], [], ""),
    ],
)
def test_choice(include: list[str], exclude: list[str], taken: str) -> None:
    root = Path("/videos/raw")  # what lies above the folder that was named does not count
    files = ["a.mp4", "raw/a.mp4", "cam/raw/b.MP4", "cam/c.mkv"]
    choice = Choice(include, exclude).below(root)
    assert [file for file in files if choice.takes(root / file)] == taken.split()


def test_lists() -> None:
    assert read_list("a b.mp4\n\nc.mp4") == ["a b.mp4", "c.mp4"]
    assert read_list("a\nb.mp4\0c.mp4\0") == ["a\nb.mp4", "c.mp4"]
    assert common_folder(["in/a.mp4", "./in/b/c.mp4"]) == Path("in").absolute() and common_folder([]) is None


def test_time_that_is_left_is_said_when_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    meter = Meter({1: 1000, 2: 3000}, total=10)
    assert meter.measure({1: 0.0}).remaining_s is None and meter.measure({}).done == 8
    now[0] = 160.0  # starting takes a minute, and will not come again
    assert meter.measure({1: 0.1}).remaining_s is None
    now[0] = 170.0
    moved = meter.measure({1: 0.6})  # 500 bytes in 10 s; 3400 are left
    assert moved.remaining_s == pytest.approx(68) and moved.part == pytest.approx(600 / 4000)
    meter.ended(1)
    now[0] = 180.0
    moved = meter.measure({2: 0.3})
    assert (moved.done, moved.total) == (9, 10) and moved.remaining_s == pytest.approx(2100 * 20 / 1800)
    meter.ended(2)
    assert meter.measure({}).part == 1.0


def test_time_that_is_left_in_words() -> None:
    said = {None: "", 20: "less than a minute left", 55: "about 1 min left", 600: "about 10 min left"}
    said |= {3590: "about 1 h left", 7800: "about 2 h 10 min left", 100_000: "about 27 h left"}
    assert {seconds: remaining(seconds) for seconds in said} == said
