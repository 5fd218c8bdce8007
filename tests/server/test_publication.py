"""`publish:` of a source: the operator's streams, published as long as they last, and by nobody else."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack

import pytest

from perception.errors import UsageError
from perception.server.settings import AddedSource, make_settings
from tests.publishing.receivers import Receiver, free_port
from tests.server.test_roster import ENDLESS, Bench
from tests.server.waiting import wait_for


@pytest.fixture
def bench_of(tmp_path, colors, monkeypatch):
    """A hub with its roster, by the clock on the wall."""
    monkeypatch.setattr("tests.server.test_roster.ManualClock", lambda: time.monotonic)
    with ExitStack() as stack:
        yield lambda **values: Bench(tmp_path / "data", colors, stack, **values)


def source(*addresses, **more):
    return {"uri": ENDLESS, "publish": list(addresses), **more}


def test_a_source_is_published_without_a_viewer_and_watched_beside_it(bench_of):
    with Receiver("udp") as receiver:
        bench = bench_of(sources={"street": source(receiver.url)})
        bench.keeper.start()
        try:
            receiver.wait_for(10)
            stream = bench.hub.of("street")
            assert stream.viewers == 1
            (status,) = stream.status()["published"]
            assert status["kind"] == "udp" and status["state"] == "sending" and status["sent"] >= 10
            assert "127.0.0.1" not in str(stream.status())
            with stream.subscribe() as viewer:
                assert viewer.next(60) is not None
        finally:
            bench.keeper.close()


def test_targets_change_under_the_running_stream(bench_of):
    with Receiver("udp") as one, Receiver("udp") as other:
        bench = bench_of(sources={"street": source(one.url)})
        stream, _ = bench.hub.open("street")
        one.wait_for(5)
        bench.reload(sources={"street": source(other.url)})
        other.wait_for(5)
        assert bench.hub.of("street") is stream
        assert stream.reconnects == 0
        count = len(one.frames)
        bench.reload(sources={"street": source()})
        wait_for(lambda: stream.status()["published"] == [])
        assert stream.viewers == 0
        seen = len(other.frames)
        before = stream.frames
        with stream.subscribe() as viewer:
            while stream.frames < before + 5:
                viewer.next(60)
        assert len(other.frames) <= seen + 2  # what was still on its way
        assert len(one.frames) <= count + 2


def test_a_target_that_is_away_is_told_and_disturbs_nobody(bench_of, caplog):
    with caplog.at_level(logging.WARNING, "perception"):
        bench = bench_of(sources={"street": source(f"rtmp://127.0.0.1:{free_port()}/live/s3cret")})
        stream, _ = bench.hub.open("street")
        wait_for(lambda: [each["state"] for each in stream.status()["published"]] == ["away"], 60)
        assert "refused" in stream.status()["published"][0]["message"]
        with stream.subscribe() as viewer:
            for _ in range(5):
                assert viewer.next(60) is not None
        bench.hub.remove(stream.id)
    assert "s3cret" not in caplog.text
    assert "not published" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_playlist_is_for_web_servers_to_read_though_all_else_is_private(bench_of, tmp_path):
    before = os.umask(0o077)  # as the service has it
    try:
        bench = bench_of(sources={"street": source(f"hls:{tmp_path}/hls/")})
        bench.hub.open("street")
        wait_for((tmp_path / "hls" / "index.m3u8").exists, 60)
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "hls").glob("segment-*.ts")} == {0o644}
        assert (tmp_path / "hls").stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_a_stream_that_ends_ends_its_publication(bench_of):
    with Receiver("udp") as receiver:
        short = {"uri": "synthetic:?size=64x48&fps=25&frames=10", "publish": receiver.url, "loop": False}
        bench = bench_of(sources={"street": short})
        stream, _ = bench.hub.open("street")
        wait_for(lambda: stream.over, 60)
        wait_for(lambda: not stream.publication._thread.is_alive(), 60)


def test_only_the_operator_says_where(tmp_path):
    with pytest.raises(ValueError, match="publish"):
        AddedSource.model_validate({"uri": ENDLESS, "publish": ["rtsp://127.0.0.1/a"]})
    for wrong, why in (
        ("http://bob:s3cret@h/a", "cannot publish to http://"),
        ("rtsp://bob:s3#cret@h/a", "not a URL"),
        (["udp://127.0.0.1:5000", "udp://127.0.0.1:5000"], "each address takes one source"),
    ):
        with pytest.raises(UsageError, match=why) as caught:
            make_settings({"sources": {"street": {"uri": ENDLESS, "publish": wrong}}})
        assert "s3" not in str(caught.value)
    made = make_settings({"sources": {"street": {"uri": ENDLESS, "publish": "udp://127.0.0.1:5000"}}})
    assert made.sources["street"].kept
    assert not make_settings({"sources": {"street": ENDLESS}}).sources["street"].kept
