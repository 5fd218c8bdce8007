"""A video from standard input, in a process of its own and in this one."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perception.errors import SourceError
from perception.sources import open_source
from perception.sources.base import Selection
from perception.sources.video import PipeSource
from tests.media import make_video, read_stamp
from tests.noise import noise_frames
from tests.server.waiting import wait_for

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from perception.sources import open_source
from perception.errors import SourceError
from tests.media import read_stamp
try:
    with open_source("-", **eval(sys.argv[1])) as source:
        print(*[read_stamp(f.image) for f in source], source.info.kind, source.info.frame_count)
except SourceError as error:
    print(error)
"""


def run(data, options="{}"):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, options], input=data, capture_output=True, cwd=ROOT, timeout=60, check=True
    )
    return done.stdout.decode().strip()


@pytest.mark.parametrize(
    ("ending", "container"),
    [("ts", {}), ("mkv", {}), ("mp4", {"movflags": "faststart"}), ("mp4", {"movflags": "frag_keyframe+empty_moov"})],
)
def test_container_from_a_pipe(tmp_path, ending, container):
    data = make_video(tmp_path / f"v.{ending}", frames=30, keyint=5, container=container).read_bytes()
    words = run(data, "{'start': 0.4, 'every': 2}").split()
    assert words[:-2] == [str(i) for i in range(10, 30, 2)]
    assert words[-2] == "stdin"


def test_faults(tmp_path):
    assert run(b"") == "-: standard input is empty"
    assert "-: not a video" in run(b"hello\n" * 500)
    noisy = noise_frames(4, 160, 96)
    late_index = make_video(tmp_path / "v.mp4", images=[*noisy] * 5, size_wh=(160, 96)).read_bytes()
    assert len(late_index) > 100_000  # too long to be held until its index comes
    assert "has its index at the end and cannot be read from a pipe" in run(late_index)


def test_a_start_behind_the_end_is_not_a_late_index(tmp_path):
    fragmented = make_video(tmp_path / "v.mp4", frames=20, container={"movflags": "frag_keyframe+empty_moov"})
    assert "it ends before second 100" in run(fragmented.read_bytes(), "{'start': 100}")


def test_standard_input_that_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of `<&-`
    with pytest.raises(SourceError, match="standard input is closed"):
        open_source("-")


def test_a_pipe_cut_short_ends_with_what_came(tmp_path):
    data = make_video(tmp_path / "v.ts", frames=100, keyint=10).read_bytes()
    numbers = [int(w) for w in run(data[: len(data) // 2]).split()[:-2]]
    assert len(numbers) > 20
    assert numbers[:20] == list(range(20))


def test_terminal():
    class Terminal:
        def isatty(self):
            return True

    with pytest.raises(SourceError, match="standard input is a terminal"):
        PipeSource(Selection(), Terminal())


@pytest.mark.skipif(os.name != "posix", reason="pipes cannot be waited for on this system")
def test_closing_while_the_writer_pauses(tmp_path):
    data = make_video(tmp_path / "v.ts", frames=200, keyint=10).read_bytes()
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as stream, os.fdopen(write_end, "wb") as writer:
        feeder = threading.Thread(target=lambda: (writer.write(data[: len(data) // 2]), writer.flush()))
        feeder.start()
        source = PipeSource(Selection(), stream)
        frames = []
        reader = threading.Thread(target=lambda: frames.extend(source))
        reader.start()
        feeder.join(10)
        wait_for(lambda: len(frames) > 50)  # the rest of what came is being decoded, and then nothing comes
        source.close()
        reader.join(5)
        assert not reader.is_alive()
    assert frames
    assert read_stamp(frames[0].image) == 0


def test_stdin_that_is_no_file(tmp_path, monkeypatch):
    import io

    class Stdin:
        buffer = io.BytesIO(make_video(tmp_path / "v.ts", frames=10).read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    with open_source("-") as source:
        assert [read_stamp(f.image) for f in source] == list(range(10))
