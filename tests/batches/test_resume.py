"""What a batch writes, what it does again and what it leaves; include, exclude and lists; the report and the JSON."""

from __future__ import annotations

import io
import json
import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from tests.batches.running import command, done_in, make_clips, tree
from tests.fixtures import Main
from tests.media import make_video
from tests.models import PALETTE

pytestmark = [pytest.mark.usefixtures("own_cache_home"), pytest.mark.timeout(600)]

NASTY = "<b>&'%20x.mp4"


def photo(path: Path, squares: int) -> Path:
    """Gray with red squares on the grid of the model's anchors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((48, 64, 3), 128, np.uint8)
    for i in range(squares):
        picture[:16, 16 * i : 16 * i + 16] = PALETTE["red"][::-1]
    assert cv2.imwrite(str(path), picture)
    return path


class Page(HTMLParser):
    """The texts of a page's cells, its links and its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.tags: set[str] = set()
        self.title = ""
        self._open = ""
        self.feed(text)
        self.cells = [cell.strip() for cell in self.cells]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._open = tag
        self.cells += [""] if tag == "td" else []
        self.links += [value or "" for name, value in attrs if (tag, name) == ("a", "href")]
        self.pictures += [value or "" for name, value in attrs if (tag, name) == ("img", "src")]

    def handle_data(self, data: str) -> None:
        if self._open in ("h1", "span") and not self.cells:
            self.title += data
        elif self.cells:
            self.cells[-1] += data


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_batch_and_what_it_does_again(tmp_path: Path, model: str, main_here: Main) -> None:
    clips = make_clips(tmp_path / "in", 3)
    (clips / "camera2" / "clip0.mp4").rename(clips / "camera2" / NASTY)
    for name, squares in (("a", 1), ("b", 3)):
        photo(clips / "photos" / f"{name}.png", squares)
    bad = clips / "photos" / "bad.jpg"
    bad.write_bytes(b"no picture")
    broken = clips / "camera0" / "broken.mp4"
    broken.write_text("no video")
    out, masks = tmp_path / "out", tmp_path / "masks"
    words = command(clips, model, out, "--masks", f"{masks}")
    first = main_here(*words, "--json")
    assert first.returncode == 3, first.stderr
    told = json.loads(first.stdout)
    assert (told["total"], told["done"], told["failed"], told["unreadable"]) == (5, 3, 1, [str(bad)])
    assert {Path(row["source"]).name: row["state"] for row in told["sources"]} == {
        "broken.mp4": "failed", "clip0.mp4": "done", NASTY: "done", "photos": "partly",
    }  # fmt: skip
    assert not list(out.glob(".*")) and not list(masks.glob(".*"))

    # the same frames and boxes as without a batch
    plain = tmp_path / "plain"
    clip = clips / "camera1" / "clip0.mp4"
    alone = ["annotate", str(clip), "-m", model, "-o", f"{plain}/", "--jsonl", f"{plain}/", "--precision", "fp32"]
    assert main_here(*alone).returncode == 0
    rows = lines(plain / "clip0.jsonl")
    assert all(row.pop("timings") for row in rows)
    assert rows == lines(out / "camera1" / "clip0.jsonl") and len(rows) == 4
    assert (out / "camera0" / "clip0.mp4").is_file() and len(list((masks / "camera1" / "clip0").iterdir())) == 4

    # the report says what the JSON says
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.title == "4 of 5 files annotated, 1 failed, 1 picture cannot be read"
    assert str(broken) in page.cells and str(bad) in page.cells and "b" not in page.tags
    assert any(cell.startswith("not a video that can be read") for cell in page.cells)
    assert any(cell.startswith(str(clips / "camera2" / NASTY)) for cell in page.cells)
    assert page.cells.count("red 4") == 1 and len(page.pictures) == 4
    assert all((out / unquote(link)).exists() for link in page.links) and len(page.links) == 12

    # nothing is done again but what failed
    kept, times = tree(out), {p: p.stat().st_mtime_ns for p in out.rglob("*.mp4")}
    again = main_here(*words)
    assert again.returncode == 3 and f"0 of 5 done, 4 skipped, 1 failed: {broken}" in again.stderr
    assert tree(out) == kept and {p: p.stat().st_mtime_ns for p in out.rglob("*.mp4")} == times

    # what has changed, has lost an output or has a damaged one, and what is new
    make_video(clips / "camera0" / "clip0.mp4", frames=9)
    os.truncate(out / "camera1" / "clip0.mp4", 100)
    (masks / "camera2" / next(iter(masks.glob("camera2/*"))).name / "000000.png").unlink()
    photo(bad, 2)
    make_video(broken, frames=2)
    more = clips / "camera0" / "clip0.mkv"  # comes first, and the name that it would have is taken
    make_video(more, frames=7)
    mended = main_here(*words)
    assert mended.returncode == 0 and mended.stderr.strip().endswith("6 of 6 done"), mended.stderr
    assert "since they have changed: 2 sources" in mended.stderr  # the photos are one
    assert len(lines(out / "camera0" / "clip0.jsonl")) == 9 and len(lines(out / "camera0" / "clip0-2.jsonl")) == 7
    assert (out / "camera1" / "clip0.mp4").read_bytes() == kept["camera1/clip0.mp4"]
    assert sorted(p.name for p in (out / "photos").iterdir()) == ["a.jpg", "b.jpg", "bad.jpg"]
    assert len(list((masks / "camera0" / "clip0").iterdir())) == 9

    # other settings; frames that are not made any more go
    other = main_here(*words, "--every", "2", "--exclude", "photos", "--jobs", "1")
    assert other.returncode == 0 and "other settings were used before (source every): 5" in other.stderr
    assert len(lines(out / "camera0" / "clip0.jsonl")) == 5 == len(list((masks / "camera0" / "clip0").iterdir()))
    assert done_in(out) == 6  # what is not asked for stays

    # another place
    moved = main_here(*words[:-1], f"{tmp_path}/moved", "--every", "2", "--include", "camera1")
    assert moved.returncode == 0 and len(list((tmp_path / "moved" / "camera1" / "clip0").iterdir())) == 2, moved.stderr


def test_what_no_batch_has_made_stays(tmp_path: Path, model: str, main_here: Main) -> None:
    clips, out = make_clips(tmp_path / "in", 2), tmp_path / "out"
    words = ["annotate", str(clips), "-r", "-m", model, "-o", f"{out}/", "--jobs", "1"]
    precious = out / "camera0" / "clip0.mp4"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    (out / ".perception-batch" / "0123").mkdir(parents=True)  # as a killed run leaves it
    (out / ".perception-batch" / "0123" / "draft.mp4").touch()
    partly = main_here(*words)
    assert partly.returncode == 3 and "no batch has made it" in partly.stderr and "--overwrite" in partly.stderr
    assert precious.read_text() == "precious" and (out / "camera1" / "clip0.mp4").is_file()
    assert not (out / ".perception-batch").exists()
    refused = main_here(*words)
    assert refused.returncode == 2 and "--resume goes on with it" in refused.stderr
    (out / "manifest.jsonl").write_text("my own notes\n")
    foreign = main_here(*words, "--resume")
    assert foreign.returncode == 2 and "is no manifest of a batch" in foreign.stderr
    assert (out / "manifest.jsonl").read_text() == "my own notes\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "out.mp4"], "give -o a folder"),
        (["-o", "out/", "--csv", "all.csv"], "give --csv a folder"),
        (["--jsonl", "-"], "standard output"),
        (["-o", "out/", "--skip-existing"], "leave out --skip-existing"),
        (["-o", "out/", "--stage", "panoptic", "--clips", "clips"], "keeps no clips"),
        (["-o", "out/", "0"], "a batch is of files"),
        (["-o", "out/", "rtsp://bob:s3cret@camera/live"], "rtsp://camera/...: a batch is of files"),
    ],
)
def test_what_a_batch_does_not_do(
    tmp_path: Path, model: str, main_here: Main, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "a.mp4", frames=2)
    refused = main_here("annotate", "a.mp4", "-m", model, "--resume", *words)
    assert refused.returncode == 2 and said in refused.stderr and "s3cret" not in refused.stderr
    assert not list(tmp_path.rglob("*.jsonl")) and not list(tmp_path.rglob("*.html"))


def test_chosen_files_keep_their_folders(tmp_path: Path, model: str, main_here: Main) -> None:
    """Without a batch, too."""
    clips, out = make_clips(tmp_path / "in", 5), tmp_path / "out"
    make_video(clips / "camera0" / "raw.mp4", frames=1)
    for name in ("a", "raw", "z"):
        photo(clips / "photos" / f"{name}.png", 1)
    words = ["annotate", str(clips), "-r", "-m", model, "-o", f"{out}/", "--exclude", "raw*", "--exclude", "camera2"]
    assert main_here(*words, "--exclude", "*1/clip1.*").returncode == 0
    made = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert made == {"camera0/clip0.mp4", "camera0/clip1.mp4", "camera1/clip0.mp4", "photos/a.jpg", "photos/z.jpg"}
    only = tmp_path / "only"
    assert main_here(*words[:5], "-o", f"{only}/", "--include", "z.png", "--include", "camera2").returncode == 0
    made = {p.relative_to(only).as_posix() for p in only.rglob("*") if p.is_file()}
    assert made == {"camera2/clip0.mp4", "photos/z.jpg"}
    none = main_here(*words[:5], "-o", f"{only}/", "--include", "nothing")
    assert none.returncode == 2 and "no file here" in none.stderr


def test_a_list_from_standard_input(
    tmp_path: Path, model: str, main_here: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, out = make_clips(tmp_path / "in", 3), tmp_path / "out"
    paths = sorted(str(p) for p in clips.rglob("*.mp4"))

    class Stdin:
        def __init__(self, data: bytes) -> None:
            self.buffer = io.BytesIO(data)

    for number, data in enumerate(("\n".join(paths) + "\n", "\0".join(paths) + "\0")):
        monkeypatch.setattr(sys, "stdin", Stdin(data.encode()))
        done = main_here("annotate", "--files-from", "-", "-m", model, "-o", f"{out}{number}/")
        assert done.returncode == 0 and done.stderr.strip().endswith("3 of 3 done"), done.stderr
        made = {p.relative_to(f"{out}{number}").as_posix() for p in Path(f"{out}{number}").rglob("*.mp4")}
        assert made == {"camera0/clip0.mp4", "camera1/clip0.mp4", "camera2/clip0.mp4"}
    listed = tmp_path / "list.txt"
    listed.write_text("\n\n")
    empty = main_here("annotate", "--files-from", str(listed), "-m", model, "-o", f"{out}/")
    assert empty.returncode == 2 and "the list of files is empty" in empty.stderr
    nothing = main_here("annotate", "-m", model, "-o", f"{out}/")
    assert nothing.returncode == 2 and "SOURCE" in nothing.stderr


def test_pictures_go_to_both_places_that_are_asked_for(tmp_path: Path, model: str, main_here: Main) -> None:
    photo(tmp_path / "photos" / "a.png", 1)
    out, frames = tmp_path / "out", tmp_path / "frames"
    done = main_here("annotate", f"{tmp_path}/photos", "-m", model, "-o", f"{out}/", "--images", f"{frames}/")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in out.iterdir()] == ["a.jpg"] == [p.name for p in frames.iterdir()]
    assert (out / "a.jpg").read_bytes() == (frames / "a.jpg").read_bytes()
