"""Several sources at once: photos, globs and folders, tables for all, what is told at the end."""

from __future__ import annotations

import csv
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from perception.annotate import Outputs, Result, RunSummary, annotate_all
from perception.drawing.annotator import Annotator
from perception.errors import UsageError
from perception.model import load_model
from perception.sources.base import Source
from perception.types import Prediction
from tests.fixtures import Main
from tests.media import make_video
from tests.models import PALETTE, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("models") / "colors.onnx", detection=True))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, frames in (("a", 3), ("b", 1)):
        make_video(folder / f"{name}.mp4", frames=frames)
    return folder


def photo(path: Path, squares: int = 1) -> Path:
    """Gray with red squares on the grid of the model's anchors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((48, 64, 3), 128, np.uint8)
    for i in range(squares):
        picture[:16, 16 * i : 16 * i + 16] = PALETTE["red"][::-1]
    assert cv2.imwrite(str(path), picture)
    return path


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_photo_becomes_a_photo(tmp_path: Path, model: str, suffix: str, main_here: Main) -> None:
    source, out = photo(tmp_path / "in.png"), tmp_path / "made" / f"one.{suffix}"
    done = main_here("annotate", str(source), "-m", model, "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert "1 picture in" in done.stderr and "frame" not in done.stderr
    written, plain = cv2.imread(str(out)), cv2.imread(str(source))
    assert written.shape == plain.shape and np.abs(written.astype(int) - plain).max() > 40  # drawn on
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    again = main_here("annotate", str(source), "-m", model, "-o", str(out))
    assert again.returncode == 2 and "--overwrite" in again.stderr
    itself = main_here("annotate", str(source), "-m", model, "-o", str(source), "--overwrite")
    assert itself.returncode == 2 and "also an input" in itself.stderr


def test_a_video_does_not_become_a_photo(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    out = tmp_path / "one.jpg"
    refused = main_here("annotate", str(videos / "a.mp4"), "-m", model, "-o", str(out))
    assert refused.returncode == 2 and "one.jpg: a picture has one frame" in refused.stderr and not out.exists()
    first = main_here("annotate", str(videos / "a.mp4"), "-m", model, "-o", str(out), "--max-frames", "1")
    assert first.returncode == 0 and cv2.imread(str(out)) is not None


def test_a_glob_of_videos(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    done = main_here("annotate", str(videos / "*.mp4"), "-m", model, "-o", f"{tmp_path}/out/")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mp4"]


def test_a_folder_of_all_kinds(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    photo(videos / "p.png")
    photo(videos / "sub" / "q.png")
    (videos / "notes.txt").touch()
    line = ["annotate", str(videos), "-m", model, "-o", f"{tmp_path}/out/"]
    done = main_here(*line)
    assert done.returncode == 0, done.stderr
    made = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert made == {"a.mp4", "b.mp4", "p.jpg"}
    assert "sub" in done.stderr and "notes.txt" in done.stderr
    assert last_line(done.stderr) == "3 of 3 done"
    assert "[2/3] " in done.stderr and "3 frames" in done.stderr and "1 frame in" in done.stderr
    assert "1 picture in" in done.stderr
    again = main_here(*line, "--recursive", "--skip-existing")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "sub" / "q.jpg").is_file()
    assert last_line(again.stderr) == "1 of 4 done, 3 skipped"


def test_what_is_partly_there(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    line = ["annotate", str(videos), "-m", model, "-o", f"{tmp_path}/out/", "--jsonl", f"{tmp_path}/out/"]
    assert main_here(*line).returncode == 0
    (tmp_path / "out" / "b.mp4").unlink()
    kept = (tmp_path / "out" / "a.mp4").stat().st_mtime_ns
    partly = main_here(*line, "--skip-existing")
    assert partly.returncode == 3 and "b.jsonl" in partly.stderr and "--overwrite" in partly.stderr
    assert main_here(*line, "--skip-existing", "--overwrite").returncode == 0
    assert (tmp_path / "out" / "b.mp4").is_file() and (tmp_path / "out" / "a.mp4").stat().st_mtime_ns == kept


def test_ctrl_c_in_a_batch_and_going_on(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    """The source that was interrupted has whole files of a part of it; they are made again, and no others."""
    make_video(videos / "c.mp4", frames=40)
    out = tmp_path / "out"
    outputs = Outputs(video=f"{out}/", jsonl=f"{out}/jsonl/")
    go_on = threading.Event()
    count = 0

    def held(prediction: Prediction) -> Prediction:
        nonlocal count
        count += 1
        assert count < 12 or go_on.wait(60)  # 3 of a, 1 of b, some of c
        return prediction

    def started(result: Result, source: Source) -> Callable[[int, int], None] | None:
        def progress(done: int, dropped: int) -> None:
            if result.number == 3 and count >= 12 and not go_on.is_set():
                go_on.set()
                raise KeyboardInterrupt

        return progress

    with load_model(model) as loaded:
        drawn = Annotator(loaded.card)
        results = [
            *annotate_all([str(videos)], loaded, outputs, annotator=drawn, stages=[held], started=started)
        ]  # fmt: skip
        assert results[-1].report is not None and results[-1].report.interrupted and results[-1].number == 3
        assert RunSummary.of(results).line() == (
            "2 of 3 done, interrupted: the same command with --skip-existing goes on"
        )  # fmt: skip
    made = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    whole = {f"{name}{end}" for name in "abc" for end in (".mp4",)} | {f"jsonl/{name}.jsonl" for name in "abc"}
    assert made == whole | {"c.mp4.unfinished", "jsonl/c.jsonl.unfinished"}
    part = len((out / "jsonl" / "c.jsonl").read_text().splitlines())
    assert 0 < part < 40
    kept = {name: (out / name).stat().st_mtime_ns for name in ("a.mp4", "b.mp4", "jsonl/a.jsonl")}
    line = ["annotate", str(videos), "-m", model, "-o", f"{out}/", "--jsonl", f"{out}/jsonl/"]
    refused = main_here(*line)
    assert refused.returncode != 0 and "--overwrite" in refused.stderr
    again = main_here(*line, "--skip-existing")
    assert again.returncode == 0, again.stderr
    assert last_line(again.stderr) == "1 of 3 done, 2 skipped"
    assert len((out / "jsonl" / "c.jsonl").read_text().splitlines()) == 40
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == whole
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept


def test_the_line_of_a_source_names_its_own_files(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    done = main_here("annotate", str(videos), "-m", model, "-o", f"{tmp_path}/o/", "--csv", f"{tmp_path}/all.csv")
    lines = done.stderr.strip().splitlines()
    assert [line.partition(" -> ")[2] for line in lines[:2]] == [f"{tmp_path}/o/a.mp4", f"{tmp_path}/o/b.mp4"]
    assert lines[2:] == [f"of all of them: {tmp_path}/all.csv", "2 of 2 done"]


def test_a_photo_is_not_tracked(tmp_path: Path, model: str, main_here: Main) -> None:
    """A tracker shows confirmed tracks only, and would leave out boxes of the one picture that there is."""
    photo(tmp_path / "one" / "a.png", squares=3)
    tables = [tmp_path / f"{name}.csv" for name in ("plain", "tracked", "folder")]
    for table, more in ((tables[0], []), (tables[1], ["--track"])):
        line = ["annotate", str(tmp_path / "one" / "a.png"), "-m", model, "--csv", str(table), "--score", "0.2", *more]
        done = main_here(*line)
        assert done.returncode == 0, done.stderr
        assert "are tracked as if" not in done.stderr
    assert tables[0].read_text() == tables[1].read_text()
    assert len(tables[0].read_text().splitlines()) == 4
    photo(tmp_path / "one" / "b.png", squares=1)
    several = main_here("annotate", str(tmp_path / "one"), "-m", model, "--csv", str(tables[2]), "--track")
    assert several.returncode == 0 and "its 2 pictures are tracked as if" in several.stderr


def test_segments_that_were_not_finished_are_made_again(tmp_path: Path, model: str, main_here: Main) -> None:
    scene = "synthetic:?size=64x48&frames=2"
    folder, line = tmp_path / "segments", ["annotate", scene, "-m", model, "--panoptic", f"{tmp_path}/segments"]
    line += ["--things", "red=red", "--skip-existing", "--overwrite"]
    assert main_here(*line).returncode == 0
    assert "skipped" in main_here(*line).stderr
    (folder / "panoptic.json").rename(folder / "panoptic.json.part")  # as a killed run leaves it
    assert "done" in main_here(*line).stderr and (folder / "panoptic.json").is_file()


def test_partly_done_is_code_3_and_the_last_line(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    bad = videos / "bad.mp4"
    bad.write_text("this is no video")
    done = main_here("annotate", str(videos), "-m", model, "-o", f"{tmp_path}/out/")
    assert done.returncode == 3
    assert last_line(done.stderr) == f"2 of 3 done, 1 failed: {bad}"
    none = main_here("annotate", str(bad), "vidoes/", "-m", model, "-o", f"{tmp_path}/out/")
    assert none.returncode == 2 and last_line(none.stderr) == f"0 of 2 done, 2 failed: {bad}, vidoes/"
    quiet = main_here("annotate", str(videos), "-m", model, "-o", f"{tmp_path}/new/", "-q")
    assert quiet.returncode == 3 and quiet.stderr.startswith("error:") and len(quiet.stderr.splitlines()) == 1


def test_a_picture_that_cannot_be_read_is_in_the_last_line(tmp_path: Path, model: str, main_here: Main) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a", "b", "c"):
        photo(photos / f"{name}.png")
    bad = photos / "bad.jpg"
    bad.write_bytes((photos / "a.png").read_bytes()[:40])
    line = ["annotate", str(photos), "-m", model, "-o", f"{out}/", "--skip-existing", "--overwrite"]
    partly = main_here(*line)
    assert partly.returncode == 3 and "3 pictures, 1 cannot be read in" in partly.stderr
    assert last_line(partly.stderr) == f"3 of 4 done, 1 failed: {bad}"
    assert {p.name for p in out.iterdir()} == {"a.jpg", "b.jpg", "c.jpg"}
    make_video(photos / "v.mp4", frames=2)
    among = main_here(*line)
    assert among.returncode == 3
    assert last_line(among.stderr) == f"1 of 2 done, 1 skipped, 1 picture failed: {bad}"  # it has not changed
    photo(bad)
    whole = main_here(*line)
    assert whole.returncode == 0 and last_line(whole.stderr) == "1 of 2 done, 1 skipped"
    assert {p.name for p in out.iterdir()} == {"a.jpg", "b.jpg", "bad.jpg", "c.jpg", "v.mp4"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]


def test_photos_that_are_named_lie_side_by_side(tmp_path: Path, model: str, main_here: Main) -> None:
    """As a shell names them for ``photos/*.png``."""
    photos = [str(photo(tmp_path / "photos" / f"{name}.png")) for name in ("a", "b", "c")]
    line = ["annotate", *photos, "-m", model, "-o", f"{tmp_path}/out/", "--skip-existing"]
    assert main_here(*line).returncode == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.jpg", "b.jpg", "c.jpg"}
    (tmp_path / "out" / "b.jpg").unlink()
    assert last_line(main_here(*line).stderr) == "1 of 3 done, 2 skipped"
    alone = main_here("annotate", str(photo(tmp_path / "d.png")), "-m", model, "-o", f"{tmp_path}/out/")
    assert alone.returncode == 0 and (tmp_path / "out" / "d.jpg").is_file()  # beside others


def test_pictures_may_go_into_the_working_directory(
    tmp_path: Path, model: str, main_here: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "photos" / "a.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", "./"):
        done = main_here("annotate", "../photos", "-m", model, "-o", out, "--overwrite")
        assert done.returncode == 0, done.stderr
        assert [p.name for p in Path.cwd().iterdir()] == ["a.jpg"]


def test_what_was_not_done_is_not_taken_for_done(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    """The pictures of a folder lie where its videos do, which are no pictures."""
    photo(videos / "p.png")
    out = tmp_path / "out"
    assert main_here("annotate", str(videos / "a.mp4"), "-m", model, "-o", f"{out}/").returncode == 0
    done = main_here("annotate", str(videos), "-m", model, "-o", f"{out}/", "--skip-existing")
    assert last_line(done.stderr) == "2 of 3 done, 1 skipped" and (out / "p.jpg").is_file()


def test_one_line_of_result_and_the_rest_under_stats(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    line = ["annotate", str(videos / "a.mp4"), "-m", model, "--overwrite", "-o", str(tmp_path / "o.mp4")]
    short, long = main_here(*line), main_here(*line, "--stats")
    assert len(short.stderr.splitlines()) == 1 and "3 frames" in short.stderr and "[1/1]" not in short.stderr
    assert len(long.stderr.splitlines()) == 3 and "infer" in long.stderr


def test_one_table_for_all_and_a_row_for_every_frame(tmp_path: Path, model: str, main_here: Main) -> None:
    squares = {"none": 0, "one": 1, "three": 3}
    photos = [str(photo(tmp_path / "in" / f"{name}.png", n)) for name, n in squares.items()]
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is no video")
    files = {kind: tmp_path / f"all.{kind}" for kind in ("csv", "parquet", "jsonl")} | {"counts": tmp_path / "n.csv"}
    flags = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    done = main_here("annotate", *photos[:1], str(bad), *photos[1:], "-m", model, *flags)
    assert done.returncode == 3, done.stderr
    with files["counts"].open(newline="") as file:
        counts = list(csv.DictReader(file))
    assert [(Path(row["source"]).stem, int(row["red"]), int(row["total"])) for row in counts] == [
        (name, n, n) for name, n in squares.items()
    ]
    assert list(counts[0]) == ["source", "index", "time", "total", "red", "green", "blue"]
    with files["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(text) for text in files["jsonl"].read_text().splitlines()]
    assert [line["source"] for line in lines] == photos
    wanted = {path: n for path, n in zip(photos, squares.values(), strict=True) if n}
    assert Counter(row["source"] for row in rows) == wanted
    assert Counter(pq.read_table(files["parquet"]).column("source").to_pylist()) == wanted
    assert not list(tmp_path.glob("*.part"))


def test_one_table_goes_with_no_skipping(tmp_path: Path, model: str, videos: Path, main_here: Main) -> None:
    refused = main_here(
        "annotate", str(videos), "-m", model, "-o", f"{tmp_path}/o/", "--csv", f"{tmp_path}/a.csv", "--skip-existing"
    )
    assert refused.returncode == 2 and "a.csv" in refused.stderr and not (tmp_path / "o").exists()


def test_a_table_that_is_there_stops_the_batch_before_it_begins(tmp_path: Path, model: str, videos: Path) -> None:
    table = tmp_path / "all.csv"
    table.write_text("precious")
    with load_model(model) as loaded:
        annotator = Annotator(loaded.card)
        with pytest.raises(UsageError, match="the file exists"):
            next(annotate_all([str(videos)], loaded, Outputs(csv=str(table)), annotator=annotator))
    assert table.read_text() == "precious"


def test_counts_need_boxes(tmp_path: Path, main_here: Main) -> None:
    model = str(write_model(tmp_path / "masks.onnx"))
    refused = main_here("annotate", "synthetic:?size=64x48&frames=2", "-m", model, "--counts", f"{tmp_path}/n.csv")
    assert refused.returncode == 2 and "finds no boxes" in refused.stderr and not (tmp_path / "n.csv").exists()
