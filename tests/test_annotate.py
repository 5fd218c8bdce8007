"""Which sources make which outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perception.annotate import Outputs, plan, stem
from perception.commands.main import app
from perception.errors import UsageError
from tests.media import make_video
from tests.models import write_model
from tests.own_stages import own_stages


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
    assert outputs_of(["a.png"], video="out/") == [{"picture": "out/a.jpg"}]
    assert outputs_of(["a.PPM"], video="out/") == [{"picture": "out/a.jpg"}]
    assert outputs_of(["x/a.png", "y/a.jpg", "b.mp4"], video="out") == [
        {"picture": "out/a.jpg"}, {"picture": "out/a-2.jpg"}, {"video": "out/b.mp4"},
    ]  # fmt: skip
    assert outputs_of(["frames/a?.png"], video="out/") == [{"images": "out/"}]
    assert outputs_of(["http://camera/live.jpg"], video="out/") == [{"video": "out/camera.mp4"}]
    assert outputs_of(["a.png"], video="a.mp4") == [{"video": "a.mp4"}]


@pytest.mark.parametrize("path", ["out.mp4", "-"])
def test_several_sources_need_a_folder(path: str) -> None:
    with pytest.raises(UsageError, match="folder"):
        plan(["a.mp4", "b.mp4"], Outputs(video=path))


@pytest.mark.parametrize("paths", [("x.txt", "x.txt"), ("x.txt", "./d/../x.txt"), ("-", "-")])
def test_two_outputs_are_never_one_file(paths: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="jsonl and csv"):
        plan(["a.mp4"], Outputs(jsonl=paths[0], csv=paths[1]))


def test_no_output_is_a_file_that_is_still_to_be_read(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4"):
        (tmp_path / name).touch()
    # a.mkv comes first, and makes an a.mp4
    with pytest.raises(UsageError, match=r"a\.mp4: this file is also an input"):
        plan([str(tmp_path)], Outputs(video=str(tmp_path)))
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mkv")
    with pytest.raises(UsageError, match=r"link\.mp4"):
        plan([str(tmp_path / "a.mkv")], Outputs(video=str(tmp_path / "link.mp4")))
    assert len(plan([str(tmp_path)], Outputs(video=str(tmp_path / "out")))) == 3


@pytest.mark.parametrize("text", ["n" * 300, f"http://camera/{'n' * 300}?token={'n' * 300}"])
def test_names_that_no_file_system_can_hold_are_sources_and_outputs_like_others(text: str) -> None:
    assert outputs_of([text], video=text) == [{"video": text}]


def test_no_output_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing to write"):
        plan(["a.mp4"], Outputs())


def test_a_folder_is_its_videos_and_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    touch(folder, "b.mp4", "a.MKV", "notes.txt", "x.png", "y.jpg", "deep/c.mp4", "deep/deeper/c.mp4", "deep/z.png")
    assert placed(folder, tmp_path) == {"a.MKV": "a.mp4", "b.mp4": "b.mp4", "": "."}
    assert placed(folder, tmp_path, recursive=True) == {
        "a.MKV": "a.mp4", "b.mp4": "b.mp4", "": ".",
        "deep/c.mp4": "deep/c.mp4", "deep": "deep", "deep/deeper/c.mp4": "deep/deeper/c.mp4",
    }  # fmt: skip


def test_pictures_lie_beside_videos_of_their_only_folder(tmp_path: Path) -> None:
    """Of a pattern, too; those of several folders, and masks, have folders of their names, as videos' masks do."""
    touch(tmp_path, "in/a.mp4", "in/p.png", "more/a.mp4", "more/p.png")
    outputs = Outputs(video=f"{tmp_path}/out/", masks=f"{tmp_path}/masks")

    def pictures(*sources: str) -> list[dict[str, str]]:
        made = [result for result in plan([f"{tmp_path}/{s}" for s in sources], outputs) if result.pictures]
        return [{k: Path(p).relative_to(tmp_path).as_posix() for k, p in result.outputs.items()} for result in made]

    assert pictures("in") == pictures("in/") == [{"images": "out", "masks": "masks/in"}]
    assert pictures("in/*") == [{"images": "out", "masks": "masks/source"}]
    assert [made["images"] for made in pictures("in", "more")] == ["out/in", "out/more"]
    assert [made["picture"] for made in pictures("in/a.mp4", "more/p.png")] == ["out/p.jpg"]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def placed(folder: Path, root: Path, **options: bool) -> dict[str, str]:
    """Where the annotated video or pictures of each source go, both relative."""
    made = plan([str(folder)], Outputs(video=f"{root}/out/"), **options)
    sources = [Path(result.source).relative_to(folder).as_posix() for result in made]
    paths = [Path(*result.outputs.values()).relative_to(root / "out").as_posix() for result in made]
    return {source.replace(".", "", source == "."): path for source, path in zip(sources, paths, strict=True)}


def test_what_a_run_has_written_is_no_source_of_the_next(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "sub/b.mp4", "out/a.mp4", "out/sub/b.mp4", "masks/a/000000.png")
    made = plan([str(tmp_path)], Outputs(video=f"{tmp_path}/out/", masks=f"{tmp_path}/masks"), recursive=True)
    assert [Path(result.source).relative_to(tmp_path).as_posix() for result in made] == ["a.mp4", "sub/b.mp4"]


@pytest.mark.parametrize(("path", "kind"), [("a.jpg", "picture"), ("d/a.PNG", "picture"), ("a.mp4", "video")])
def test_the_name_says_whether_a_photo_becomes_a_photo(path: str, kind: str) -> None:
    assert outputs_of(["photo.heic"], video=path) == [{kind: path}]


def test_a_table_may_be_one_for_all(tmp_path: Path) -> None:
    paths = {"jsonl": "-", "csv": "all.csv", "parquet": "x/all.parquet", "counts": "n.csv"}
    assert outputs_of(["a.mp4", "b.mp4"], **paths) == [paths, paths]
    assert outputs_of(["a.mp4", "b.mp4"], csv="out") == [{"csv": "out/a.csv"}, {"csv": "out/b.csv"}]
    assert outputs_of(["a.mp4"], csv=f"{tmp_path}", counts=f"{tmp_path}") == [
        {"csv": f"{tmp_path}/a.csv", "counts": f"{tmp_path}/a.counts.csv"}
    ]
    with pytest.raises(UsageError, match="need a folder for coco"):
        plan(["a.mp4", "b.mp4"], Outputs(coco="all.json"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("0", "camera0"),
        ("-", "stdin"),
        ("/dev/video2", "video2"),
        ("a b/c d.mp4", "c_d"),
        ("rtsp://user:secret@cam.example:554/live/main.sdp", "cam.example"),
        ("synthetic:?size=64x48", "synthetic"),
        ("frames/*.png", "source"),
        ("rtsp://camera", "camera"),
        ("http://10.0.0.1:8080/", "10.0.0.1"),
        ("csi://1?size=1280x720&fps=30", "csi1"),
        ("http://[no-address/x", "source"),
    ],
)
def test_stem(source: str, name: str) -> None:
    assert stem(source) == name


def test_stages_are_named_on_the_command_line(tmp_path: Path) -> None:
    """Each source has them with state of its own."""
    model = write_model(tmp_path / "m.onnx", detection=True)
    videos = [str(make_video(tmp_path / f"{name}.mp4", frames=6)) for name in "ab"]
    with own_stages(tmp_path, "stages_of_annotate"):
        line = ["annotate", *videos, "--jsonl", str(tmp_path / "out/"), "-m", str(model), "--quiet"]
        done = CliRunner().invoke(app, [*line, "--stage", "stages_of_annotate:Count"])
        assert done.exit_code == 0, done.output
        for text in ("stage: stages_of_annotate:Count", "stage: [stages_of_annotate:Count]"):
            (tmp_path / "options.yaml").write_text(text)
            again = CliRunner().invoke(app, [*line, "--overwrite", "--config", str(tmp_path / "options.yaml")])
            assert again.exit_code == 0, again.output
        wrong = CliRunner().invoke(app, [*line, "--stage", "stages_of_annotate:Cuont"])
        assert isinstance(wrong.exception, UsageError) and "did you mean 'Count'" in str(wrong.exception)
    for name in "ab":
        lines = (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line)["detections"][0]["box"][2] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_the_network_on_fewer_frames(tmp_path: Path) -> None:
    clip, rows = tmp_path / "clip.mp4", tmp_path / "rows.jsonl"
    make_video(clip, frames=30, size_wh=(160, 96))
    model = write_model(tmp_path / "m.onnx", detection=True)
    result = CliRunner().invoke(app, ["annotate", str(clip), "--jsonl", str(rows), "-m", str(model), "--every", "auto"])
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    seen = sum(not row.get("propagated", False) for row in written)
    assert len(written) == 30 and f"the network saw {seen} of 30 frames; " in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--every", "0"], "--every takes a whole number from 1, or auto, not '0'"),
        (["--every", "often"], "--every takes a whole number from 1, or auto, not 'often'"),
        (["--max-loss", "0.02"], "--max-loss is what --every auto may cost: give that, too"),
        (["--every", "auto", "--max-loss", "0.9"], "less than or equal to 0.5"),
    ],
)
def test_how_many_frames_is_a_number_or_auto(arguments: list[str], told: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["annotate", "x.mp4", "--jsonl", str(tmp_path / "x.jsonl"), *arguments])
    assert result.exit_code and told in f"{result.output} {result.exception}"
