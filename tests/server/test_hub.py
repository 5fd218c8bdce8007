"""Which streams there are: opened once, closed when nobody cares, never what the operator did not offer."""

import threading
import time

import pytest

from perception import UsageError
from perception.server.inference.models import Models
from perception.server.metrics import Metrics
from perception.server.problems import Busy, Forbidden, NotFound
from perception.server.settings import Limits, ServerSettings
from perception.server.streams.hub import IDLE_S, StreamHub
from perception.server.streams.timeouts import Timeouts
from tests.media import http_folder, make_image, make_video, tcp_server
from tests.models import write_model
from tests.rtsp import rtsp_server
from tests.server.clocks import ShiftedClock
from tests.server.threads import NewThreads
from tests.server.waiting import wait_for

ENDLESS = "synthetic:?size=64x48&fps=25&frames=0"
TIMEOUTS = Timeouts(stall=1.0, silence=3.0, first_pause=0.05, longest_pause=0.2, age=10.0)


@pytest.fixture
def hub_of(colors, tmp_path):
    """Makes hubs with a tiny model; closes them, and sees that nothing is left of them."""
    made = []
    threads = NewThreads()

    def make(idle_s=IDLE_S, timeouts=TIMEOUTS, clock=time.monotonic, **options):
        values = {"sources": {"street": ENDLESS, "park": ENDLESS + "&seed=1", "pipe": "-", "the yard": ENDLESS}}
        settings = ServerSettings(data_dir=tmp_path, **({"model": str(colors)} | values | options))
        metrics = Metrics()
        models = Models(settings, metrics)
        hub = StreamHub(settings, models, metrics, timeouts=timeouts, idle_s=idle_s, clock=clock)
        made.append((hub, models))
        return hub, metrics

    yield make
    for hub, models in made:
        hub.close()
        models.close()
    wait_for(lambda: not threads.named("perception-stream", "perception-capture"))


def test_a_source_is_open_once(hub_of):
    hub, _ = hub_of()
    stream, new = hub.open("street")
    assert new
    assert hub.open("street") == (stream, False)
    assert hub.get("street") is stream
    other, new = hub.open("park")
    assert new
    assert other is not stream
    assert {s.id for s in hub.streams} == {"street", "park"}
    # What cannot stand in a URL gets an id that can.
    named, _ = hub.open("the yard")
    assert named.name == "the yard"
    assert named.id.isalnum()


def test_threads_that_open_at_once_get_the_same(hub_of):
    hub, _ = hub_of()
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(hub.open("street"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(opened) == 8
    assert len({stream for stream, _ in opened}) == 1
    assert sum(new for _, new in opened) == 1


def test_what_nobody_watches_is_closed(hub_of):
    clock = ShiftedClock()
    hub, metrics = hub_of(clock=clock)
    watched, _ = hub.open("street")
    viewer = watched.subscribe()
    idle, _ = hub.open("park")
    wait_for(lambda: watched.frames and idle.frames)  # or the clock would be ahead of one that is still connecting
    clock.advance(IDLE_S)
    wait_for(lambda: idle.over)
    assert not watched.over  # which was looked at just then
    with pytest.raises(NotFound, match="no viewers"):
        hub.get("park")
    wait_for(lambda: 'stream="park"' not in metrics.render().decode())
    viewer.close()
    clock.advance(IDLE_S)
    wait_for(lambda: watched.over and not hub.streams)
    again, new = hub.open("street")
    assert new
    assert again is not watched


def test_removing_ends_it_for_its_viewers(hub_of):
    hub, _ = hub_of()
    stream, _ = hub.open("street")
    with stream.subscribe() as viewer:
        assert viewer.next(30) is not None
        hub.remove("street")
        while viewer.next(5) is not None:
            pass
        assert viewer.over
    with pytest.raises(NotFound):
        hub.remove("street")


def test_limits(hub_of):
    hub, _ = hub_of(limits=Limits(streams=2, viewers=1))
    first, _ = hub.open("street")
    second, _ = hub.open("park")
    with first.subscribe(), second.subscribe():  # left in the other order
        with pytest.raises(Busy, match="2 streams"):
            hub.open("the yard")
        with hub.viewer(), pytest.raises(Busy, match="too many viewers"), hub.viewer():
            pass
        with hub.viewer():
            pass
    hub.open("the yard")  # the one that nobody has watched for longest gives its place
    assert second.over
    assert not first.over
    assert len(hub.streams) == 2


def test_what_is_not_offered(hub_of):
    hub, _ = hub_of(allow=("http://127.0.0.1:9/*", "synthetic:?size=64x48*"))
    for source in ("/etc/passwd", "file:///etc/passwd", "-", "0", "http://127.0.0.1:10/x", "concat:a|b", "synthetic:"):
        with pytest.raises(Forbidden):
            hub.open(source)
    with pytest.raises(UsageError, match="standard input"):
        hub.open("pipe")
    with pytest.raises(NotFound):
        hub.open("street", "no such model")
    assert not hub.streams
    stream, _ = hub.open("synthetic:?size=64x48&seed=3")
    assert stream.id.isalnum()
    assert stream.state != "failed"


def test_a_url_is_checked_again_for_each_connection(hub_of, tmp_path, monkeypatch):
    make_video(tmp_path / "v.mp4", frames=25, container={"movflags": "faststart"})
    with http_folder(tmp_path) as base:
        hub, _ = hub_of(allow=(f"{base}/*",))
        stream, _ = hub.open(f"{base}/v.mp4")
        wait_for(lambda: stream.state == "ended")  # a finite file of a client's is played once
        assert stream.frames > 0

        def moved(uri, settings):
            raise Forbidden("leads inside now")

        again, new = hub.open(f"{base}/v.mp4")
        assert new
        for module in ("hub", "maker"):
            monkeypatch.setattr(f"perception.server.streams.{module}.check_source", moved)
        again.close()
        with pytest.raises(Forbidden):
            hub.open(f"{base}/v.mp4")


def test_a_redirect_that_comes_later_is_not_followed(hub_of, tmp_path):
    """The address answered well when it was checked, and leads elsewhere when it is opened."""
    make_video(tmp_path / "v.mp4", frames=25, container={"movflags": "faststart"})
    asked = []

    with http_folder(tmp_path) as base:

        def turncoat(connection, ended):
            asked.append(connection.recv(4096))
            if len(asked) <= 2:  # the checks of opening and of connecting
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            else:
                head = f"HTTP/1.1 302 Found\r\nLocation: {base}/v.mp4\r\nContent-Length: 0\r\n\r\n"
                connection.sendall(head.encode())

        with tcp_server(turncoat) as port:
            url = f"http://127.0.0.1:{port}/v.mp4"
            hub, _ = hub_of(allow=(url,))
            stream, _ = hub.open(url)
            wait_for(lambda: stream.over or stream.state == "reconnecting")
            wait_for(lambda: len(asked) >= 3)
            assert stream.frames == 0
            hub.remove(stream.id)


def test_one_address_in_several_spellings_is_one_stream(hub_of, tmp_path):
    make_video(tmp_path / "v.mp4", frames=50, container={"movflags": "faststart"})
    with http_folder(tmp_path) as base:
        hub, _ = hub_of(allow=(f"{base}/*",))
        stream, _ = hub.open(f"{base.replace('http', 'HTTP')}/v.mp4#t=1")
        assert hub.open(f"{base}/v.mp4") == (stream, False)
        wait_for(lambda: stream.frames)


def test_a_redirect_of_a_camera_is_not_followed(hub_of):
    visits = []

    def visited(connection, ended):
        visits.append(connection.recv(4096))

    with tcp_server(visited) as elsewhere:

        def answer(method, head):
            location = f"rtsp://127.0.0.1:{elsewhere}/inside"
            text = f"RTSP/1.0 302 Moved\r\nCSeq: CSEQ\r\nLocation: {location}\r\n\r\n"
            return text.encode() if method == "DESCRIBE" else None

        with rtsp_server(answer) as server:
            hub, _ = hub_of(allow=(f"rtsp://127.0.0.1:{server.port}/*",))
            stream, _ = hub.open(f"rtsp://127.0.0.1:{server.port}/live")
            wait_for(lambda: "redirects to another one" in stream.status()["message"])
            hub.remove(stream.id)
    assert not visits


def test_a_camera_that_a_client_chose_plays(hub_of):
    with rtsp_server() as server:
        hub, _ = hub_of(allow=(f"rtsp://127.0.0.1:{server.port}/*",))
        stream, _ = hub.open(f"rtsp://127.0.0.1:{server.port}/live/K3Y")
        with stream.subscribe() as viewer:
            assert viewer.next(30) is not None
        hub.remove(stream.id)


def test_streams_that_are_opened_and_deleted_take_no_more_threads_than_streams_may_be(hub_of):
    """Drawing one takes a moment, in which a client can open and delete many."""
    hub, _ = hub_of(allow=("synthetic:*",), limits=Limits(streams=3))
    threads = NewThreads()
    most = opened = 0
    for seed in range(20):
        try:
            stream, _ = hub.open(f"synthetic:?size=2048x1536&seed={seed}")
        except Busy:
            pass
        else:
            opened += 1
            hub.remove(stream.id)
        most = max(most, len(threads.named("perception-capture")))
    assert opened > 3
    assert most <= 3
    wait_for(lambda: not threads.named("perception-capture"))


def test_a_closed_stream_counts_until_its_last_thread_has_ended(hub_of):
    def silent(connection, ended):
        ended.wait()

    timeouts = Timeouts(silence=600)
    threads = NewThreads()
    with tcp_server(silent) as port:
        hub, _ = hub_of(allow=(f"rtmp://127.0.0.1:{port}/*",), limits=Limits(streams=2), timeouts=timeouts)
        for i in range(2):
            stream, _ = hub.open(f"rtmp://127.0.0.1:{port}/{i}")
            wait_for(lambda n=i: len(threads.named("connect")) == n + 1)
            hub.remove(stream.id)
        assert not hub.streams
        wait_for(lambda: not threads.named("perception-stream ", "perception-capture"))
        # FFmpeg cannot be told to leave off; its two threads wait for the server.
        with pytest.raises(Busy, match="being closed"):
            hub.open("street")
        assert len(threads.named("connect")) == 2
    wait_for(lambda: not threads.named("connect"))
    hub.open("street")


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp"])
def test_deleting_a_stream_that_is_being_opened_ends_it(hub_of, scheme):
    asked = threading.Event()

    def silent(connection, ended):
        connection.recv(4096)
        asked.set()
        ended.wait()

    threads = NewThreads()
    with tcp_server(silent) as port:
        hub, _ = hub_of(allow=(f"{scheme}://127.0.0.1:{port}/*",), timeouts=Timeouts(silence=600, opening=600))
        stream, _ = hub.open(f"{scheme}://127.0.0.1:{port}/x")
        assert asked.wait(30)
        hub.remove(stream.id)
        wait_for(lambda: not threads.named("perception-stream ", "perception-capture"))
        if scheme == "rtsp":
            wait_for(lambda: not threads.named("relay", "connect"))


@pytest.mark.parametrize("kind", ["synthetic", "video", "picture", "http", "rtsp", "its url"])
def test_frames_that_are_too_large(hub_of, tmp_path, kind):
    make_video(tmp_path / "v.mp4", frames=10, container={"movflags": "faststart"})
    make_image(tmp_path / "p.png")
    with http_folder(tmp_path) as base, rtsp_server() as server:
        sources = {
            "synthetic": "synthetic:?size=80x48",
            "video": str(tmp_path / "v.mp4"),
            "picture": str(tmp_path / "p.png"),
            "http": f"{base}/v.mp4",
            "rtsp": f"rtsp://127.0.0.1:{server.port}/live",
        }
        allow = (f"rtsp://127.0.0.1:{server.port}/*",)
        hub, _ = hub_of(sources=sources, allow=allow, limits=Limits(stream_pixels=80 * 48 - 1))
        stream, _ = hub.open(sources["rtsp"] if kind == "its url" else kind)
        wait_for(lambda: "80x48 is too large" in stream.status()["message"])
        assert not stream.frames
        hub.remove(stream.id)


def test_a_drawn_stream_of_a_client_is_bounded_by_default(hub_of):
    hub, _ = hub_of(allow=("synthetic:*",))
    stream, _ = hub.open("synthetic:?size=8192x6000")
    wait_for(lambda: stream.state == "failed")
    assert "8192x6000 is too large" in stream.status()["message"]


def test_a_named_source_has_rules_of_its_own(hub_of, tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("zones:\n  - {name: all, points: [[0, 0], [1, 0], [1, 1], [0, 1]]}\n")
    model = write_model(tmp_path / "boxes.onnx", detection=True, anchor=16)
    sources = {"street": ENDLESS, "park": {"uri": ENDLESS + "&seed=1", "rules": str(path)}}
    hub, _ = hub_of(model=str(model), sources=sources)
    assert [[rule.name for rule in rules] for rules in hub.fixed_rules] == [["all"]]
    watched, _ = hub.open("park")
    plain, _ = hub.open("street")
    wait_for(lambda: watched.frames > 2 and plain.frames > 2, 60)
    assert set(watched.status()["rules"]) == {"all"} and plain.status()["rules"] == {}
    assert set(watched.status()["rules"]["all"]) == {"inside", "entered", "left", "staying"}
