"""Odd and broken input through the whole pipeline: clear errors, valid files, nothing lost, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from perception.annotate import Outputs, Result, annotate_all
from perception.drawing.annotator import Annotator
from perception.model import Model, load_model
from tests import media
from tests.fixtures import Main
from tests.models import build_model, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_model(tmp_path_factory.mktemp("models") / "colors.onnx", detection=True)
    with load_model(path, mode="throughput") as loaded:
        yield loaded


def annotate(source: Path | str, model: Model, tmp_path: Path, **outputs: str) -> Result:
    outputs = outputs or {"video": str(tmp_path / "o.mp4"), "jsonl": str(tmp_path / "o.jsonl")}
    (result,) = annotate_all([str(source)], model, Outputs(**outputs), annotator=Annotator(model.card))
    return result


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 9), (641, 359)])
def test_odd_and_tiny_sources_come_out_playable(size: tuple[int, int], model: Model, tmp_path: Path) -> None:
    source = media.make_image(tmp_path / "in.png", size_wh=size)
    result = annotate(source, model, tmp_path)
    assert result.error is None
    (frame,) = decoded(tmp_path / "o.mp4")
    # H.264 in 4:2:0 has even sides: the last row and column are repeated, none is lost.
    assert frame.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert json.loads((tmp_path / "o.jsonl").read_text())["size"] == list(size)


def test_an_8k_frame_goes_through(model: Model, tmp_path: Path) -> None:
    source = media.make_image(tmp_path / "in.jpg", size_wh=(7680, 4320))
    result = annotate(source, model, tmp_path, images=str(tmp_path / "images"), masks=str(tmp_path / "masks"))
    assert result.error is None
    assert len(list((tmp_path / "images").iterdir())) == len(list((tmp_path / "masks").iterdir())) == 1


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "directory", "no video stream", "no frames"])
def test_a_source_that_is_none_is_named_and_leaves_nothing(kind: str, model: Model, tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    if kind == "empty":
        source.touch()
    elif kind == "text":
        source.write_text("Dear video, ...")
    elif kind == "directory":
        source.mkdir()
    elif kind == "no video stream":
        source = media.make_audio(tmp_path / "in.mp3")
    elif kind == "no frames":
        media.make_empty_container(source)
    out = tmp_path / "out"
    result = annotate(source, model, tmp_path, video=str(out / "o.mp4"), coco=str(out / "o.json"))
    assert result.report is None
    assert result.error is not None
    assert source.name in str(result.error)
    assert "\n" not in str(result.error)
    assert result.error.exit_code == 2
    assert not list(out.glob("*"))


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.ts"])
def test_a_source_cut_short_gives_what_it_has(name: str, model: Model, tmp_path: Path) -> None:
    whole = media.make_video(tmp_path / f"whole-{name}", frames=60)
    source = tmp_path / name
    # An MP4 has its index at its end: without it there is nothing to find the frames by.
    media.truncate(whole, 0.6, to=source)
    result = annotate(source, model, tmp_path)
    if name == "in.mp4":
        assert result.error is not None
        assert name in str(result.error)
    else:
        assert result.error is None
        assert 10 < len(decoded(tmp_path / "o.mp4")) < 60
        lines = (tmp_path / "o.jsonl").read_text().splitlines()
        assert len(lines) == len(decoded(tmp_path / "o.mp4"))


def test_a_source_corrupt_in_the_middle_goes_on_after_it(model: Model, tmp_path: Path) -> None:
    source = media.make_video(tmp_path / "in.ts", frames=100)
    media.corrupt(source, 0.4, 0.5)
    result = annotate(source, model, tmp_path)
    assert result.error is None
    times = [json.loads(line)["time"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(times) > 60
    assert times[-1] > 3.5
    assert len(decoded(tmp_path / "o.mp4")) == len(times)


def test_a_full_disk_ends_the_run_with_one_line_and_a_playable_file(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx")
    out = tmp_path / "out"
    script = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv = ["perception", "annotate", "synthetic:?size=640x360&frames=100000", "-m", {str(model)!r},
            "-o", {str(out / "o.mp4")!r}]
from perception.commands.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error:") and "o.mp4" in line]
    (left,) = out.iterdir()
    assert len(decoded(left)) > 10


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_named(model: Model, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    result = annotate("synthetic:?size=64x48&frames=3", model, tmp_path, video=str(locked / "o.mp4"))
    assert result.error is not None
    assert "o.mp4" in str(result.error)


def test_a_place_that_cannot_be_a_folder_is_named(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = annotate("synthetic:?size=64x48&frames=3", model, tmp_path, video=str(tmp_path / "file" / "o.mp4"))
    assert result.error is not None
    assert "o.mp4" in str(result.error)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no card", ["no model card", "frames", "class_logits", "--card"]),
        ("not onnx", ["not an ONNX file"]),
        ("other outputs", ["class_logits"]),
        ("broken card", ["not JSON"]),
    ],
)
def test_models_that_do_not_fit_are_explained(fault: str, words: list[str], tmp_path: Path, main_here: Main) -> None:
    import onnx

    path = tmp_path / "bad.onnx"
    if fault == "not onnx":
        path.write_bytes(b"\x00\x01 not protobuf" * 50)
    else:
        graph = build_model(with_card=fault != "no card")
        if fault == "other outputs":
            graph.graph.output[0].name = "renamed"
            graph.graph.node[-1].output[0] = "renamed"
        if fault == "broken card":
            graph.metadata_props[0].value = "{"
        onnx.save(graph, str(path))
    args = ["annotate", "synthetic:?size=64x48&frames=3", "-m", str(path), "-o", str(tmp_path / "o.mp4")]
    done = main_here(*args)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "bad.onnx" in line
    for word in words:
        assert word in line
    assert not (tmp_path / "o.mp4").exists()
