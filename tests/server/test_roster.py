"""Sources that come, change, pause and go while others run: these lose no frame, and what they have counted stays.

The others' frames are given one by one, each when the last one has its result: whatever is lost then is lost by the
change, however slow the machine is.
"""

import logging
import socket
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from perception import UsageError
from perception.pipeline import StageChain
from perception.rules.settings import make_rules
from perception.server.inference.models import Models
from perception.server.metrics import Metrics
from perception.server.problems import Conflict, Forbidden, NotFound
from perception.server.settings import AddedSource, make_settings
from perception.server.streams import roster as roster_module
from perception.server.streams.hub import StreamHub
from perception.server.streams.keeper import Keeper
from perception.server.streams.roster import Roster
from perception.server.streams.source_book import SourceBook
from perception.sources import open_source
from perception.stages.factories import find_stage
from perception.stages.rules import rules_factory
from perception.stages.track import tracking_options
from perception.types import Frame
from tests.models import write_model
from tests.server.clocks import ManualClock
from tests.server.streams import CALM, Scripted
from tests.server.threads import NewThreads
from tests.server.waiting import wait_for

ENDLESS = "synthetic:?size=64x48&fps=25&frames=0"
ALL = "zones:\n  - {name: all, points: [[0, 0], [1, 0], [1, 1], [0, 1]]}\n"


class Bench:
    """A hub with its roster, and sources named ``script:...`` that give frames when the test says so."""

    def __init__(self, folder, model, stack, **values):
        self.folder = folder
        self.values = {"model": str(model), "data_dir": str(folder), "allow": ["synthetic:*"], **values}
        self.settings = make_settings(self.values)
        self.scripts = {}
        self.attempts = {}
        self.clock = ManualClock()
        self.book = SourceBook(self.settings, folder / "sources.json")
        metrics = Metrics()
        self.models = Models(self.settings, metrics)
        stack.callback(self.models.close)
        self.hub = StreamHub(self.settings, self.models, metrics, timeouts=CALM, clock=self.clock, book=self.book)
        stack.callback(self.hub.close)
        self.keeper = Keeper(self.hub, self.book)
        self.roster = Roster(self.book, self.hub, self.keeper, self.models)

    def opened(self, uri, **options):
        self.attempts[uri] = self.attempts.get(uri, 0) + 1
        if not uri.startswith("synthetic:?script="):
            return open_source(uri, **options | {"timeout": min(options["timeout"], 10.0)})
        made = self.scripts[uri.partition("=")[2]] = Scripted(uri)
        return made

    def start(self, name):
        """Open a scripted source, and wait until it is connected."""
        stream, _ = self.hub.open(name)
        script = self.settings.sources[name].uri.partition("=")[2]
        wait_for(lambda: script in self.scripts)
        return stream, self.scripts[script]

    def reload(self, **values):
        self.roster.reload(lambda: make_settings(self.values | values))


@pytest.fixture
def bench_of(tmp_path, colors, monkeypatch):
    threads = NewThreads()
    with ExitStack() as stack:

        def make(**values):
            made = Bench(tmp_path / "data", values.pop("model", colors), stack, **values)
            monkeypatch.setattr("perception.server.streams.maker.open_source", made.opened)
            return made

        yield make
    wait_for(lambda: not threads.named("perception-stream", "perception-capture", "perception-keep"))


def give(stream, script, count=1, image=None):
    """So many frames, each when the one before has its result."""
    for _ in range(count):
        before = stream.frames
        if image is None:
            script.put()
        else:
            index = next(script._count)
            script._queue.put(Frame(image, index=index, time=index / 25, arrived=1e9))
        wait_for(lambda before=before: stream.frames == before + 1)


@contextmanager
def in_lockstep(*pairs):
    """Frames of streams, given all the while; none may be lost."""
    ended = threading.Event()
    counts = [0] * len(pairs)
    faults = []

    def run(number, stream, script):
        try:
            while not ended.is_set():
                give(stream, script)
                counts[number] += 1
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=(i, *pair), daemon=True) for i, pair in enumerate(pairs)]
    frames = [stream.frames for stream, _ in pairs]
    dropped = [stream.dropped for stream, _ in pairs]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert not faults
    assert [stream.frames for stream, _ in pairs] == [a + b for a, b in zip(frames, counts, strict=True)]
    assert [stream.dropped for stream, _ in pairs] == dropped
    assert [stream.reconnects for stream, _ in pairs] == [0] * len(pairs)


def test_no_frame_of_the_others_is_lost_whatever_changes(bench_of):
    bench = bench_of(sources={"a": "synthetic:?script=a", "b": "synthetic:?script=b", "yard": ENDLESS})
    pairs = [bench.start("a"), bench.start("b")]
    yard, _ = bench.hub.open("yard")
    with in_lockstep(*pairs) as counts:

        def go_on():
            least = [count + 2 for count in counts]
            wait_for(lambda: all(count >= such for count, such in zip(counts, least, strict=True)))

        for turn in range(3):
            assert bench.roster.put("gate", AddedSource(uri=ENDLESS + f"&seed={turn}"))
            gate, _ = bench.hub.open("gate")
            go_on()
            assert not bench.roster.put("gate", AddedSource(uri=ENDLESS + f"&seed={turn + 1}", fps=5))
            wait_for(lambda gate=gate: gate.over)  # its address is another one
            again, new = bench.hub.open("gate")
            assert new
            bench.roster.pause("gate", True)
            wait_for(lambda again=again: again.state == "paused")
            bench.roster.pause("gate", False)
            wait_for(lambda again=again: again.state == "running")
            bench.roster.remove("gate")
            assert again.over
            bench.roster.pause("yard", turn % 2 == 0)
            bench.reload(sources=bench.values["sources"] | {"new": ENDLESS})
            bench.reload()
            go_on()
    assert bench.hub.open("a") == (pairs[0][0], False)  # the same stream all along
    assert yard.state in ("paused", "running")


def test_one_that_stalls_comes_and_goes_or_floods_disturbs_nobody(bench_of):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        refused = f"rtsp://127.0.0.1:{nobody.getsockname()[1]}/live"
    scripted = {name: f"synthetic:?script={name}" for name in ("a", "b", "silent", "flood")}
    bench = bench_of(sources=scripted | {"lost": refused})
    pairs = [bench.start("a"), bench.start("b")]
    silent, script = bench.start("silent")
    give(silent, script)
    with ExitStack() as watched, in_lockstep(*pairs) as counts:
        for stream, _ in pairs:
            watched.enter_context(stream.subscribe())
        bench.clock.advance(CALM.stall + 1)
        wait_for(lambda: silent.state == "stalled")
        lost, _ = bench.hub.open("lost")
        flood, script = bench.start("flood")
        ended, given = threading.Event(), [0]

        def pour():
            while not ended.is_set():
                script.put()
                given[0] += 1

        pouring = threading.Thread(target=pour, daemon=True)
        pouring.start()
        try:
            before, flooded = counts.copy(), flood.frames
            wait_for(lambda: given[0] >= 500 and all(n >= m + 20 for n, m in zip(counts, before, strict=True)))
            wait_for(lambda: bench.attempts.get(refused, 0) >= 5)
        finally:
            ended.set()
            pouring.join(60)
        assert flood.frames > flooded and flood.dropped > 0  # what is too much of it is its own loss
        assert lost.state == "reconnecting" and "refused" in lost.status()["message"]
    assert all(stream.state == "running" for stream, _ in pairs)


def test_counts_and_tracks_of_the_others_go_on(bench_of, tmp_path):
    (tmp_path / "rules.yaml").write_text(ALL)
    model = write_model(tmp_path / "boxes.onnx", classes=["white", "black"], detection=True, anchor=16)
    bench = bench_of(
        model=model,
        sources={"a": {"uri": "synthetic:?script=a", "rules": str(tmp_path / "rules.yaml")}, "yard": ENDLESS},
    )
    stream, script = bench.start("a")
    give(stream, script, 20, picture(3, 0))  # all have entered for good
    before = stream.status()["rules"]["all"]
    tracks = stream.newest().detections.track_ids.tolist()
    assert before["inside"] >= 1 and tracks
    bench.roster.put("gate", AddedSource(uri=ENDLESS))
    bench.hub.open("gate")
    bench.roster.pause("yard", True)
    bench.roster.remove("gate")
    bench.reload(sources=bench.values["sources"] | {"new": ENDLESS})
    give(stream, script, 5, picture(3, 0))
    after = stream.status()["rules"]["all"]
    assert {**after, "staying": 0} == {**before, "staying": 0}
    assert all(
        after["staying"][track] == pytest.approx(stay + 0.2, abs=0.02) for track, stay in before["staying"].items()
    )
    assert stream.newest().detections.track_ids.tolist() == tracks


def test_pausing_gives_the_camera_back_and_keeps_the_counts(bench_of, tmp_path):
    (tmp_path / "rules.yaml").write_text(ALL)
    model = write_model(tmp_path / "boxes.onnx", classes=["white", "black"], detection=True, anchor=16)
    rules = str(tmp_path / "rules.yaml")
    bench = bench_of(model=model, sources={"a": {"uri": "synthetic:?script=a", "rules": rules}})
    stream, script = bench.start("a")
    give(stream, script, 3, picture(3, 0))
    entered = stream.status()["rules"]["all"]["entered"]
    assert sum(entered.values()) >= 1
    with stream.subscribe() as viewer:
        bench.roster.pause("a", True)
        wait_for(lambda: stream.state == "paused")
        wait_for(lambda: script._closing)
        assert not stream.over and not viewer.over
        assert bench.hub.open("a") == (stream, False)
        bench.roster.pause("a", False)
        wait_for(lambda: bench.scripts["a"] is not script)
        give(stream, bench.scripts["a"], 3, picture(3, 0))
        assert stream.state == "running" and stream.reconnects == 0
    counted = stream.status()["rules"]["all"]["entered"]
    assert all(counted[name] >= count for name, count in entered.items())


def test_a_source_that_is_paused_is_not_connected_to(bench_of):
    bench = bench_of(sources={"a": {"uri": "synthetic:?script=a", "paused": True, "keep": True}})
    bench.keeper.start()
    try:
        wait_for(lambda: [stream.state for stream in bench.hub.streams] == ["paused"])
        assert not bench.scripts
        bench.roster.pause("a", False)
        wait_for(lambda: "a" in bench.scripts)
    finally:
        bench.keeper.close()


def test_what_is_kept_open_is_opened_as_soon_as_it_is_added(bench_of):
    bench = bench_of()
    bench.keeper.start()
    try:
        bench.roster.put("gate", AddedSource(uri=ENDLESS, keep=True))
        wait_for(lambda: [stream.id for stream in bench.hub.streams] == ["gate"], 4)  # and not at the next look
        bench.roster.remove("gate")
        assert not bench.hub.streams
    finally:
        bench.keeper.close()


def test_nothing_is_kept_open_once_it_has_been_closed(bench_of):
    """A server that is closed while its model is loaded begins to keep sources only then."""
    bench = bench_of(sources={"gate": {"uri": "synthetic:?script=gate", "keep": True}})
    bench.keeper.close()
    bench.keeper.start()
    bench.keeper.close()
    assert not bench.hub.streams and not bench.attempts


def test_rate_and_priority_change_under_the_running_stream(bench_of):
    sources = {"a": "synthetic:?script=a"}
    bench = bench_of(sources=sources)
    stream, script = bench.start("a")
    give(stream, script, 3)
    bench.reload(sources={"a": {"uri": sources["a"], "fps": 5, "priority": 3}})
    assert bench.hub.open("a") == (stream, False) and stream._intake.weight == 3
    before = stream.frames
    for turn in range(10):  # of 25 frames a second, every fifth
        script.put(5)
        wait_for(lambda turn=turn: stream.frames == before + turn + 1)
    assert stream.dropped == 0 and stream.reconnects == 0


def test_rules_change_under_the_running_stream(bench_of, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(ALL)
    model = write_model(tmp_path / "boxes.onnx", classes=["white", "black"], detection=True, anchor=16)
    bench = bench_of(model=model, sources={"a": {"uri": "synthetic:?script=a", "rules": str(rules)}})
    stream, script = bench.start("a")
    give(stream, script, 3)
    counted = stream.status()["rules"]["all"]
    rules.write_text(ALL + "  - {name: left, points: [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}\n")
    bench.reload()
    give(stream, script, 2)
    assert stream.status()["rules"]["all"] == counted and set(stream.status()["rules"]) == {"all", "left"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"sources": {"a": {"uri": "synthetic:?script=a", "fps": -1}}},
            "sources.a.fps: Input should be greater than 0",
        ),
        ({"sources": {"a": {"uri": "synthetic:?script=a", "rates": 1}}}, "sources.a.rates: Extra inputs"),
        ({"sources": {"a": {"uri": "x", "rules": "/nowhere/rules.yaml"}}}, "rules.yaml"),
        ({"sources": {}, "allow": ["nonsense"]}, "'nonsense' matches no URL"),
        ({"sources": {}, "port": -1}, "port"),
    ],
)
def test_a_configuration_that_is_wrong_changes_nothing(bench_of, values, said, caplog):
    bench = bench_of(sources={"a": "synthetic:?script=a"})
    stream, script = bench.start("a")
    give(stream, script, 2)
    before = bench.book.entries
    with caplog.at_level(logging.WARNING, "perception"):
        bench.reload(**values)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "\n" not in lines[0]
    assert lines[0].startswith("the configuration stays as it was: ") and said in lines[0]
    assert bench.book.entries is before
    give(stream, script, 2)


def test_rules_that_do_not_fit_the_model_change_nothing(bench_of, tmp_path, caplog):
    (tmp_path / "rules.yaml").write_text("conditions:\n  - {name: c, class: unicorn, over: 0.1}\n")
    bench = bench_of(sources={"a": "synthetic:?script=a"})
    before = bench.book.entries
    rules = str(tmp_path / "rules.yaml")
    with caplog.at_level(logging.WARNING, "perception"):
        bench.reload(sources={"a": {"uri": "synthetic:?script=a", "rules": rules}})
    assert "stays as it was" in caplog.text and "unicorn" in caplog.text and bench.book.entries is before


def test_what_cannot_change_is_told(bench_of, caplog):
    bench = bench_of(sources={"a": ENDLESS})
    with caplog.at_level(logging.WARNING, "perception"):
        bench.reload(sources={"a": ENDLESS, "b": ENDLESS}, port=1234, unknown=0.5)
    assert "sources: 1 added" in caplog.text
    assert "what has changed in port, unknown holds after a restart" in caplog.text
    assert bench.book.settings.port != 1234


def test_an_address_that_is_no_longer_allowed_is_closed(bench_of):
    bench = bench_of(sources={"a": ENDLESS})
    bench.roster.put("gate", AddedSource(uri=ENDLESS))
    gate, _ = bench.hub.open("gate")
    own, _ = bench.hub.open(ENDLESS + "&seed=3")
    named, _ = bench.hub.open("a")
    bench.reload(allow=[])
    assert gate.over and own.over and not named.over
    stream, _ = bench.hub.open("gate")
    wait_for(lambda: stream.state == "failed")
    assert "is not among the sources" in stream.status()["message"]
    with pytest.raises(Forbidden):
        bench.hub.open(ENDLESS + "&seed=3")


def test_what_was_drawn_goes_with_the_source(bench_of):
    bench = bench_of()
    zone = make_rules({"conditions": [{"name": "red", "class": "red", "over": 0.5}]})
    bench.roster.put("gate", AddedSource(uri=ENDLESS))
    bench.hub.open("gate")
    bench.hub.draw("gate", zone)
    bench.roster.put("gate", AddedSource(uri=ENDLESS, fps=2))  # the same one
    assert len(bench.hub.get("gate").rules.drawn) == 1
    bench.roster.remove("gate")
    bench.roster.put("gate", AddedSource(uri=ENDLESS))
    stream, _ = bench.hub.open("gate")
    assert len(stream.rules.drawn) == 0


def test_names_and_memory(bench_of, monkeypatch):
    bench = bench_of(sources={"yard": ENDLESS})
    for action in (
        lambda: bench.roster.remove("x"),
        lambda: bench.roster.pause("x", True),
        lambda: bench.hub.open("x"),
    ):
        with pytest.raises((NotFound, Forbidden)):
            action()
    with pytest.raises(UsageError, match="a name has"):
        bench.roster.put("a/b", AddedSource(uri=ENDLESS))
    monkeypatch.setattr(roster_module, "cameras_that_fit", lambda: 0)
    with pytest.raises(Conflict, match="no memory for one more camera"):
        bench.roster.put("gate", AddedSource(uri=ENDLESS))
    assert [*bench.book.entries] == ["yard"]


def test_ids_and_zones_are_never_mixed(bench_of, tmp_path):
    """Sixteen cameras on one engine, each with another picture and zones of its own: each has only its own numbers."""
    model = write_model(tmp_path / "boxes.onnx", classes=["white", "black"], detection=True, anchor=16)
    sources = {}
    for i in range(16):
        path = tmp_path / f"rules-{i}.yaml"
        path.write_text(f"zones:\n  - {{name: zone-{i}, points: [[0, 0], [1, 0], [1, 1], [0, 1]]}}\n")
        sources[f"cam{i}"] = {"uri": f"synthetic:?script={i}", "rules": str(path)}
    bench = bench_of(model=model, sources=sources)
    assert bench.hub.limit == 16
    pairs = [bench.start(name) for name in sources]
    model_options = tracking_options(pairs[0][0].model.card)
    alone = [
        StageChain(stream.model.card, [find_stage("track"), rules_factory(stream.rules.rules)]) for stream, _ in pairs
    ]
    for index in range(8):
        frames = [Frame(picture(i, index), index=index, time=index / 25, arrived=1e9) for i in range(16)]
        for (_, script), frame in zip(pairs, frames, strict=True):
            script._queue.put(frame)
        for i, (stream, _) in enumerate(pairs):
            wait_for(lambda stream=stream, index=index: stream.frames == index + 1)
            newest = stream.newest()
            expected = alone[i].apply(stream.model.with_options(model_options).predict(frames[i]))
            assert newest.frame.image.tolist() == frames[i].image.tolist()
            assert newest.detections.boxes.tolist() == expected.detections.boxes.tolist()
            assert newest.detections.track_ids.tolist() == expected.detections.track_ids.tolist()
            assert [r.name for r in newest.readings] == [f"zone-{i}"]
            assert [r.numbers for r in newest.readings] == [r.numbers for r in expected.readings]
    assert len({str(stream.status()["rules"]).replace(f"zone-{i}", "") for i, (stream, _) in enumerate(pairs)}) > 3


def picture(camera, index):
    """White, with as many black squares as the camera's number says, which move one by one."""
    image = np.full((48, 64, 3), 255, np.uint8)
    cells = np.random.default_rng([camera, index // 2]).permutation(12)[: camera % 8]
    for cell in cells.tolist():
        y, x = 16 * (cell // 4), 16 * (cell % 4)
        image[y : y + 16, x : x + 16] = 0
    return image
