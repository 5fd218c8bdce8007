"""``perception annotate`` without an output, and ``--open``: it lies beside its source, and a viewer gets it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from perception.commands.outputs import beside
from tests.fixtures import Main
from tests.models import write_model

SCENE = "synthetic:?size=64x48&frames=5&fps=25"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("models") / "colors.onnx", detection=True))


@pytest.fixture
def video(tmp_path: Path, model: str, main_here: Main) -> Path:
    path = tmp_path / "street.mov"
    assert main_here("annotate", SCENE, "-m", model, "-o", str(path)).returncode == 0
    return path


@pytest.fixture
def viewer(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desktop whose viewer notes what it is given; the file that it writes into."""
    folder = tmp_path_factory.mktemp("desktop")
    program = folder / "xdg-open"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/draft && mv {folder}/draft {folder}/opened\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "opened"


def opened(viewer: Path) -> str:
    deadline = time.monotonic() + 60
    while not viewer.exists():
        assert time.monotonic() < deadline, "nothing was opened"
        time.sleep(0.02)
    return viewer.read_text().strip()


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_is_annotated_beside_itself(video: Path, model: str, main_here: Main) -> None:
    done = main_here("annotate", str(video), "-m", model)
    made = video.with_name("street.annotated.mp4")
    assert done.returncode == 0, done.stderr
    assert f"no output was named: writing {made}" in done.stderr.splitlines()
    assert frames_in(made) == 5
    assert sorted(path.name for path in video.parent.iterdir()) == ["street.annotated.mp4", "street.mov"]


def test_what_is_there_is_not_overwritten_unasked(video: Path, model: str, main_here: Main) -> None:
    made = video.with_name("street.annotated.mp4")
    made.write_text("precious")
    refused = main_here("annotate", str(video), "-m", model)
    assert refused.returncode == 2 and "the file exists; give another name, or" in refused.stderr
    assert made.read_text() == "precious"
    skipped = main_here("annotate", str(video), "-m", model, "--skip-existing")
    assert skipped.returncode == 0 and made.read_text() == "precious"
    assert main_here("annotate", str(video), "-m", model, "--overwrite").returncode == 0
    assert frames_in(made) == 5


def test_a_photo_becomes_a_photo_of_its_kind(tmp_path: Path, model: str, main_here: Main) -> None:
    picture = np.full((48, 64, 3), 90, np.uint8)
    for name, made in {"a.png": "a.annotated.png", "b.bmp": "b.annotated.jpg", "c.JPG": "c.annotated.JPG"}.items():
        assert cv2.imwrite(str(tmp_path / name), picture)
        done = main_here("annotate", str(tmp_path / name), "-m", model)
        assert done.returncode == 0, done.stderr
        assert cv2.imread(str(tmp_path / made)).shape == picture.shape


def test_subtitles_lie_beside_it_too(video: Path, model: str, main_here: Main) -> None:
    done = main_here("annotate", str(video), "-m", model, "--overlay", "subtitles")
    assert done.returncode == 0, done.stderr
    with av.open(str(video.with_name("street.annotated.mkv"))) as container:
        assert [stream.type for stream in container.streams] == ["video", "subtitle"]


def test_a_named_output_is_the_only_one(video: Path, model: str, main_here: Main) -> None:
    assert main_here("annotate", str(video), "-m", model, "--jsonl", str(video.with_name("a.jsonl"))).returncode == 0
    assert not video.with_name("street.annotated.mp4").exists()


@pytest.mark.parametrize(
    "sources",
    [["a.mp4", "b.mp4"], ["."], ["*.jpg"], ["0"], ["-"], ["rtsp://camera/stream"], [SCENE], ["ftp://host/a.mp4"], [""]],
)
def test_only_a_single_file_has_a_place_beside_it(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert beside(sources, "picture") is None


def test_a_batch_wants_its_outputs_named(video: Path, model: str, main_here: Main) -> None:
    done = main_here("annotate", str(video), "-m", model, "--jobs", "1")
    assert done.returncode == 2 and "nothing to write" in done.stderr


def test_a_file_that_is_not_there_is_what_is_wrong(tmp_path: Path, model: str, main_here: Main) -> None:
    done = main_here("annotate", str(tmp_path / "nope.mp4"), "-m", model)
    assert done.returncode == 2 and "nope.mp4" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell")
def test_the_viewer_gets_what_was_made(video: Path, model: str, main_here: Main, viewer: Path) -> None:
    done = main_here("annotate", str(video), "-m", model, "--open", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert opened(viewer) == str(video.with_name("street.annotated.mp4"))


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell")
def test_of_several_the_viewer_gets_the_folder(video: Path, model: str, main_here: Main, viewer: Path) -> None:
    other = shutil.copy(video, video.with_name("other.mov"))
    out = video.parent / "out"
    done = main_here("annotate", str(video), str(other), "-m", model, "-o", f"{out}/", "--open")
    assert done.returncode == 0, done.stderr
    assert opened(viewer) == str(out)


def test_without_a_desktop_it_says_so_and_is_done(
    video: Path, model: str, main_here: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(video.parent))
    done = main_here("annotate", str(video), "-m", model, "--open")
    assert done.returncode == 0
    assert "street.annotated.mp4 cannot be opened: there is no desktop here" in done.stderr
    assert frames_in(video.with_name("street.annotated.mp4")) == 5


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--jsonl", "a.jsonl"], "--open shows a video or pictures"), (["-o", "o/", "--jobs", "1"], "leave out one")],
)
def test_what_cannot_be_opened_is_told_first(
    more: list[str], said: str, video: Path, model: str, main_here: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(video.parent)
    done = main_here("annotate", str(video), "-m", model, "--open", *more)
    assert done.returncode == 2 and said in done.stderr
    assert [path.name for path in video.parent.iterdir()] == ["street.mov"]
