"""The command line, run as a user runs it: exit codes, one-line errors, files that are valid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from typer.testing import CliRunner

from perception.commands.main import app
from tests.fixtures import Main
from tests.models import write_model

SCENE = "synthetic:?size=64x48&frames=12&fps=25"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("models") / "colors.onnx", detection=True))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, model: str) -> str:
    path = tmp_path_factory.mktemp("media") / "scene.mp4"
    assert perception("annotate", SCENE, "-m", model, "-o", str(path)).returncode == 0
    return str(path)


def perception(*args: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "perception", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **options)  # type: ignore[call-overload]


def frames_in(path: str | Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_annotate_writes_every_output_at_once(tmp_path: Path, model: str, main_here: Main) -> None:
    done = main_here(
        "annotate", SCENE, "-m", model, "-o", str(tmp_path / "o.mp4"), "--jsonl", str(tmp_path / "o.jsonl"), "--rle",
        "--coco", str(tmp_path / "o.json"), "--csv", str(tmp_path / "o.csv"), "--parquet", str(tmp_path / "o.parquet"),
        "--masks", str(tmp_path / "masks"), "--images", str(tmp_path / "images"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "12 frames" in done.stderr
    assert "fps" in done.stderr
    assert done.stdout == ""
    assert frames_in(tmp_path / "o.mp4") == 12
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(12))
    assert len(list((tmp_path / "masks").glob("*.png"))) == 12
    assert len(list((tmp_path / "images").iterdir())) == 12
    assert len(json.loads((tmp_path / "o.json").read_text())["images"]) == 12
    assert (tmp_path / "o.csv").stat().st_size > 0
    assert (tmp_path / "o.parquet").stat().st_size > 0


def test_annotate_shows_and_writes_instances(tmp_path: Path, model: str, main_here: Main) -> None:
    done = main_here(
        "annotate", SCENE, "-m", model, "-o", str(tmp_path / "o.mp4"), "--view", "panoptic",
        "--panoptic", str(tmp_path / "segments"), "--things", "red=red+green,blue=blue",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert frames_in(tmp_path / "o.mp4") == 12
    data = json.loads((tmp_path / "segments" / "panoptic.json").read_text())
    assert [c["isthing"] for c in data["categories"]] == [1, 0, 1]
    named = [a["file_name"] for a in data["annotations"]]
    assert named == sorted(p.name for p in (tmp_path / "segments" / "panoptic").glob("*.png")) and len(named) == 12


def test_json_lines_to_standard_output_are_nothing_but_json_lines(model: str) -> None:
    done = perception("annotate", SCENE, "-m", model, "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 12


def test_one_bad_file_does_not_stop_the_rest(tmp_path: Path, model: str, video: str, main_here: Main) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is no video")
    out = tmp_path / "out"
    done = main_here("annotate", str(bad), video, str(tmp_path / "missing.mp4"), "-m", model, "-o", f"{out}/")
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 2
    assert "bad.mp4" in errors[0]
    assert "missing.mp4" in errors[1]
    assert frames_in(out / "scene.mp4") == 12
    assert [p.name for p in out.iterdir()] == ["scene.mp4"]


def test_an_existing_output_is_kept_unless_told_otherwise(tmp_path: Path, model: str, main_here: Main) -> None:
    out = tmp_path / "o.mp4"
    out.write_text("precious")
    refused = main_here("annotate", SCENE, "-m", model, "-o", str(out))
    assert refused.returncode != 0
    assert "--overwrite" in refused.stderr
    assert out.read_text() == "precious"
    assert main_here("annotate", SCENE, "-m", model, "-o", str(out), "--overwrite").returncode == 0
    assert frames_in(out) == 12


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["annotate", SCENE], 2, ["nothing to write"]),
        (["annotate", "nope.mp4", "-o", "x.mp4"], 2, ["nope.mp4"]),
        (["annotate", SCENE, "-o", "x.mp4", "-m", "camvit"], 2, ["camvit", "camvid"]),
        (["annotate", SCENE, "-o", "x.mp4", "-m", "no/such.onnx"], 2, ["no/such.onnx"]),
        (["annotate", SCENE, "-o", "x.mp4", "--engine", "opnvino"], 2, ["opnvino", "openvino"]),
        (["annotate", SCENE, "-o", "x.mp4", "--score", "7"], 2, ["--score"]),
        (["annotate", SCENE, "-o", "x.xyz"], 2, ["x.xyz"]),
        (["annotate", SCENE, "-o", "no/such/place/x.mp4", "--classes", "unicorn"], 2, ["unicorn"]),
        (["annotate", SCENE, "--panoptic", "p", "-m", "camvid"], 2, ["camvid does segmentation only"]),
        (["annotate", SCENE, "-o", "x.mp4", "--view", "panoptic", "--things", "car"], 2, ["PIXELS=BOX"]),
        (["bench", "kernel"], 2, ["kernel"]),
        (["demo", "--clip", "strete"], 2, ["street"]),
        (["anotate"], 2, ["anotate"]),
    ],
)
def test_bad_usage_is_one_clear_line(
    args: list[str],
    code: int,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    main_here: Main,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = main_here(*args)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = perception("annotate", SCENE, "--debug", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_debug_says_what_the_time_went_to(tmp_path: Path, model: str, main_here: Main) -> None:
    done = main_here("annotate", SCENE, "-m", model, "--jsonl", str(tmp_path / "o.jsonl"), "--debug")
    assert done.returncode == 0, done.stderr
    _, _, table = done.stderr.partition("where the time went\n")
    rows = [(line[19:].strip(), float(line[:9]), float(line[9:19])) for line in table.splitlines()]
    told = {what: (began, took) for what, began, took in rows}  # the last of each: other tests run in this process
    assert {"imports", "card of the model", "engine", "source", "first result", "closing outputs"} <= told.keys()
    assert all(began >= 0 and took >= 0 for began, took in told.values())
    began = [begun for _, begun, _ in rows]
    assert began == sorted(began)
    assert told["first result"][1] <= told["frames"][1] + 0.02


@pytest.mark.parametrize("words", [("anotate", "demo"), ("--log-format", "text", "anotate")])
def test_a_wrong_command_is_told_with_the_nearest(words: tuple[str, ...], main_here: Main) -> None:
    done = main_here(*words)
    assert done.returncode == 2 and "annotate" in done.stderr


def test_help_before_a_command_lists_them_all(main_here: Main) -> None:
    done = main_here("--help", "annotate")
    assert all(f" {name} " in done.stdout for name in ("annotate", "live", "gpu-check", "eval", "classics"))


def test_config_sets_what_flags_set_and_flags_win(tmp_path: Path, model: str, main_here: Main) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"model: {model}\nmax-frames: 3\njsonl: '-'\n")
    assert len(main_here("annotate", SCENE, "--config", str(config)).stdout.splitlines()) == 3
    assert len(main_here("annotate", SCENE, "--config", str(config), "--max-frames", "5").stdout.splitlines()) == 5
    config.write_text("max_frame: 3\n")
    wrong = main_here("annotate", SCENE, "--config", str(config))
    assert wrong.returncode == 2
    assert "did you mean 'max-frames'" in wrong.stderr


@pytest.mark.parametrize(
    "path", sorted({*Path("configs").glob("*.yaml")} - {Path("configs/live.yaml")}), ids=lambda p: p.name
)
def test_shipped_configs_are_valid(path: Path) -> None:
    result = CliRunner().invoke(app, ["annotate", "nope.mp4", "-o", "o.mp4", "--config", str(path), "-m", "none"])
    assert "nope.mp4" in str(result.output) + str(result.exception) or "none" in str(result.exception)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_an_interrupted_run_leaves_whole_files_and_code_130(tmp_path: Path, model: str, sent: signal.Signals) -> None:
    out, coco = tmp_path / "o.mp4", tmp_path / "o.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "perception", "annotate", "synthetic:?size=320x240&frames=1000000", "-m", model]
        + ["-o", str(out), "--jsonl", str(tmp_path / "o.jsonl"), "--coco", str(coco)],
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for_lines(tmp_path / "o.jsonl", 30)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted after" in stderr
    frames = frames_in(out)
    assert frames == len((tmp_path / "o.jsonl").read_text().splitlines()) >= 30
    assert len(json.loads(coco.read_text())["images"]) == frames


def test_sigkill_leaves_a_file_that_plays_up_to_there(tmp_path: Path, model: str) -> None:
    out = tmp_path / "o.mp4"
    process = subprocess.Popen(
        [sys.executable, "-m", "perception", "annotate", "synthetic:?size=320x240&frames=1000000", "-m", model]
        + ["-o", str(out), "--jsonl", str(tmp_path / "o.jsonl")],
    )
    _wait_for_lines(tmp_path / "o.jsonl", 300)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (left,) = [p for p in tmp_path.iterdir() if ".mp4" in p.name]
    assert frames_in(left) >= 200


def test_a_pipe_closed_by_its_reader_ends_quietly(model: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "perception", "annotate", "synthetic:?size=64x48&frames=100000", "-m", model]
        + ["--jsonl", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["index"] == 0
    process.stdout.close()
    assert process.stderr is not None
    stderr = process.stderr.read()
    process.wait(timeout=60)
    assert "Traceback" not in stderr
    assert process.returncode == 1


def test_a_video_through_pipes(model: str, video: str) -> None:
    with Path(video).open("rb") as stdin:
        done = perception("annotate", "-", "-m", model, "--jsonl", "-", stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12


def test_models_and_doctor_print_and_give_json(main_here: Main) -> None:
    listed = json.loads(main_here("models", "--json").stdout)
    assert all({"name", "tasks", "licence"} <= set(row) for row in listed)
    checks = json.loads(main_here("doctor", "--json").stdout)
    assert {"openvino", "torch"} <= {check["name"].lower() for check in checks}


def test_every_command_has_help() -> None:
    for command in ("annotate", "demo", "models", "doctor", "bench", "train", "adapt", "export"):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert "Usage" in result.output


def _wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not reach {count} lines")
