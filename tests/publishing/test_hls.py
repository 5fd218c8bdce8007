"""HLS into a folder: a playlist that is read while it is written, and one of a recording that is complete."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import pytest

from perception.errors import SinkError, UsageError
from perception.sinks import open_sink
from tests.media import read_stamp
from tests.publishing.test_publish import FPS, NUMBERS, RECORDED, camera, follow_each_other, prediction
from tests.server.waiting import wait_for


def numbers(playlist: Path, count: int | None = None) -> Iterator[int]:
    """The numbers stamped on the frames that FFmpeg reads of a playlist, from its beginning."""
    with av.open(str(playlist), options={"live_start_index": "0"}) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i == count:
                return
            yield read_stamp(frame.to_ndarray(format="bgr24"))


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.publishing.address.SEGMENT_S", 0.2)
    monkeypatch.setattr("perception.sinks.packet_encoder.KEYFRAME_S", 0.2)


def test_a_playlist_is_read_while_it_is_written(tmp_path: Path, short_segments: None) -> None:
    folder = tmp_path / "street"
    with camera(f"hls:{folder}/"):
        wait_for(lambda: (folder / "index.m3u8").exists(), 60)
        seen = [*numbers(folder / "index.m3u8", 60)]
        playlist = (folder / "index.m3u8").read_text()
        # Old segments are deleted, and the list names only what is there.
        wait_for(lambda: not (folder / "segment-000000.ts").exists(), 60)
    assert follow_each_other(seen)
    assert len(seen) == 60
    assert "#EXT-X-ENDLIST" not in playlist
    assert len([*folder.glob("segment-*.ts")]) <= 9


def test_a_recording_becomes_a_complete_playlist_no_slower_than_it_comes(tmp_path: Path, short_segments: None) -> None:
    sink = open_sink(f"hls:{tmp_path}/out/")
    sink.open(RECORDED)
    for number in range(200):
        sink.write(prediction(number))
    sink.close()
    assert [*numbers(tmp_path / "out" / "index.m3u8")] == [*range(200)]
    playlist = (tmp_path / "out" / "index.m3u8").read_text()
    assert playlist.rstrip().endswith("#EXT-X-ENDLIST")
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in playlist
    lengths = [float(text) for text in re.findall(r"#EXTINF:([\d.]+)", playlist)]
    assert len(lengths) == 20
    assert sum(lengths) == pytest.approx(200 / FPS, abs=0.05)


def test_each_segment_can_be_decoded_by_itself(tmp_path: Path, short_segments: None) -> None:
    sink = open_sink(f"hls:{tmp_path}")
    sink.open(RECORDED)
    for number in range(60):
        sink.write(prediction(number))
    sink.close()
    firsts = []
    for segment in sorted(tmp_path.glob("segment-*.ts")):
        with av.open(str(segment)) as container:
            shown = [read_stamp(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
        assert all(after == (before + 1) % NUMBERS for before, after in pairwise(shown))
        firsts.append(shown[0])
    assert firsts == [0, 10, 20, 30, 40, 50]


def test_an_interrupted_recording_does_not_say_that_it_is_complete(tmp_path: Path, short_segments: None) -> None:
    sink = open_sink(f"hls:{tmp_path}")
    sink.open(RECORDED)
    for number in range(100):
        sink.write(prediction(number))
    wait_for(lambda: (tmp_path / "index.m3u8").exists(), 60)
    sink.abort()
    assert "#EXT-X-ENDLIST" not in (tmp_path / "index.m3u8").read_text()
    assert next(numbers(tmp_path / "index.m3u8", 1)) == 0


def test_a_playlist_that_is_there_is_kept_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "index.m3u8").write_text("#EXTM3U\nsegment-000077.ts\n")
    (tmp_path / "segment-000077.ts").write_bytes(b"old")
    (tmp_path / "mine.ts").write_bytes(b"mine")
    with pytest.raises(UsageError, match="the file exists"):
        open_sink(f"hls:{tmp_path}/")
    with pytest.raises(UsageError, match="not by"):
        open_sink(f"hls:{tmp_path}/", overwrite=True, codec="av1")
    assert (tmp_path / "segment-000077.ts").exists()  # nothing was begun
    sink = open_sink(f"hls:{tmp_path}/", overwrite=True)
    sink.open(RECORDED)
    sink.write(prediction(0))
    sink.close()
    assert not (tmp_path / "segment-000077.ts").exists()
    assert (tmp_path / "mine.ts").read_bytes() == b"mine"
    assert [*numbers(tmp_path / "index.m3u8")] == [0]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="this is a file"):
        open_sink(f"hls:{tmp_path}/file")
    with pytest.raises(SinkError, match="not a folder"):
        open_sink(f"hls:{tmp_path}/file/below/")


def test_a_recording_whose_disk_is_full_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.sinks.publish.PLACE_S", 0.0)
    sink = open_sink(f"hls:{tmp_path}")
    sink.open(RECORDED)
    sink.write(prediction(0))
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr("perception.sinks.publish.LEAST_FREE", 2 * free)
    with pytest.raises(SinkError, match="the disk is full"):
        sink.write(prediction(1))
    sink.abort()
