"""`perception annotate -o ADDRESS`: what is published of a file, and beside files."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from typer.testing import CliRunner

from perception.commands.main import app
from tests.media import make_video
from tests.models import write_model
from tests.publishing.receivers import Receiver, free_port


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("models") / "m.onnx", classes=["white", "black"], detection=True))


def test_a_file_is_published_and_written(tmp_path: Path, model: str) -> None:
    video = make_video(tmp_path / "street.mp4", frames=30)
    out = tmp_path / "out.mp4"
    with Receiver("rtmp") as receiver:
        arguments = [
            "annotate",
            str(video),
            "-m",
            model,
            "-o",
            receiver.url,
            "-o",
            str(out),
            "-o",
            f"hls:{tmp_path}/hls",
        ]
        result = CliRunner().invoke(app, [*arguments, "--hide", "masks,boxes,labels,legend", "--json"])
        assert result.exit_code == 0, result.output
        receiver.wait_for(30)
    assert [frame["number"] for frame in receiver.frames] == [*range(30)]
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30
    with av.open(str(tmp_path / "hls" / "index.m3u8")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30
    (row,) = json.loads(result.stdout)["sources"]
    assert row["published"] == [receiver.url.replace("/live/street", "/..."), f"hls:{tmp_path}/hls"]
    assert row["outputs"] == {"video": str(out)}


def test_nobody_listens(tmp_path: Path, model: str) -> None:
    video = make_video(tmp_path / "street.mp4", frames=3)
    out = tmp_path / "out.mp4"
    address = f"rtsp://bob:s3cret@127.0.0.1:{free_port()}/live"
    result = CliRunner().invoke(app, ["annotate", str(video), "-m", model, "-o", address, "-o", str(out)])
    assert result.exit_code == 1
    assert "nothing was published: the connection was refused" in result.output
    assert "s3cret" not in result.output
    with av.open(str(out)) as container:  # all the same
        assert sum(1 for _ in container.decode(video=0)) == 3


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-o", "a.mp4", "-o", "b.mp4"], "-o takes one file or folder"),
        (["-o", "rtsp://bob:s3cret@h/a", "--skip-existing"], "leave out `skip_existing`"),
        (["-o", "rtsp://bob:s3cret@h/a", "--jobs", "2"], "publishes nothing"),
        (["-o", "ftp://bob:s3cret@h/a"], "cannot publish to ftp://"),
        (["-o", "rtsp://bob:s3cret@h/a", "--codec", "vp9"], "not by vp9"),
        (["SECOND", "-o", "rtsp://bob:s3cret@h/a"], "one source is published at a time"),
    ],
)
def test_what_cannot_be_published(tmp_path: Path, model: str, arguments: list[str], why: str) -> None:
    video = make_video(tmp_path / "a.mp4", frames=3)
    other = make_video(tmp_path / "b.mp4", frames=3)
    arguments = [str(other) if argument == "SECOND" else argument for argument in arguments]
    result = CliRunner().invoke(app, ["annotate", str(video), "-m", model, *arguments])
    assert result.exit_code in (1, 2), result.output
    said = f"{result.exception} {' '.join(result.output.split())}"
    assert why in said
    assert "s3cret" not in said
