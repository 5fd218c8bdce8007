"""The streams of one server: opened when somebody asks for them, closed when nobody does any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from perception.errors import UsageError
from perception.footage.store import FootageStore
from perception.rules.settings import Rules
from perception.server.edge.allowlist import Permitted, as_named, check_source, host_of, may_be_allowed
from perception.server.edge.places import Places
from perception.server.edge.probe import Questions
from perception.server.inference.models import Models
from perception.server.inference.scheduler import Scheduler
from perception.server.memory import give_back
from perception.server.metrics import Metrics
from perception.server.problems import Busy, Changed, Forbidden, NotFound
from perception.server.settings import ServerSettings
from perception.server.streams.maker import StreamMaker, publish_to
from perception.server.streams.rule_store import RuleStore
from perception.server.streams.source_book import Entry, SourceBook
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from perception.server.viewers.recording import Recordings
from perception.sources.uri import kind_of
from perception.stages.factories import StageFactory
from perception.types import Event, Reading

log = logging.getLogger("perception")

IDLE_S = 60.0
"""A stream that nobody watches, records or asks for is closed after so long."""

CLEANING_S = 60.0
"""Old recordings are looked for so often."""

GIVING_BACK_S = 20.0
"""Memory that was freed is given back to the system so often."""

LEAST_STREAMS = 8
"""So many streams may be open at once where the operator has not said how many, however few sources have a name."""

ENDING_S = 3.0
"""Seconds that a new stream waits for another one, which gives its place, to have ended."""


class StreamHub:
    """Streams by id.

    Args:
        settings: which sources are allowed, and how many streams and viewers at once.
        models: where schedulers come from.
        metrics: counters of the server.
        stages: of the operator, for every stream.
        publish: is given all their events; see `Stream`.
        footage: where clips and snapshots of these events are kept; None: nowhere.
        timeouts: of the streams, see `Timeouts`.
        idle_s: see `IDLE_S`.
        clock: seconds, by which streams are idle; see `Stream` too.
        book: the sources that have a name; None: those of the settings.

    Attributes:
        recordings: of these streams, and what an earlier server left.
    """

    def __init__(
        self,
        settings: ServerSettings,
        models: Models,
        metrics: Metrics,
        *,
        stages: Sequence[StageFactory] = (),
        publish: Callable[[Event], None] | None = None,
        footage: FootageStore | None = None,
        timeouts: Timeouts | None = None,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
        book: SourceBook | None = None,
    ) -> None:
        self._settings = settings
        self._book = SourceBook(settings) if book is None else book
        self._models = models
        self._metrics = metrics
        self._footage = footage
        self._drawn = RuleStore(settings.folder / "rules")
        self._drawing = threading.Lock()
        self._maker = StreamMaker(
            settings,
            self._book,
            self._drawn,
            metrics,
            stages=stages,
            publish=publish,
            footage=footage,
            timeouts=timeouts,
            clock=clock,
        )
        self._idle_s = idle_s
        self._now = clock
        self.recordings = Recordings(settings.folder / "recordings", settings.limits, clock)
        self._questions = Questions()
        self._lock = threading.Lock()
        self._making_room = threading.Lock()
        self._streams: dict[tuple[str, str], Stream] = {}
        self._ending: list[Stream] = []  # closed, but a thread of theirs may still run
        self._viewers = Places(settings.limits.viewers, settings.limits.share, "viewers", 5.0)
        self._closing = threading.Event()
        self._janitor = threading.Thread(target=self._close_idle, name="perception-streams", daemon=True)
        self._janitor.start()

    @property
    def names(self) -> list[str]:
        """Sources that are offered by name."""
        return [*self._book.entries]

    @property
    def fixed_rules(self) -> list[Rules]:
        """The operator's rules of all sources that have some."""
        return [entry.rules for entry in self._book.entries.values() if len(entry.rules)]

    @property
    def limit(self) -> int:
        """How many streams may be open at once."""
        return self._settings.limits.streams or max(LEAST_STREAMS, len(self._book.entries))

    def draw(self, id: str, drawn: Rules, before: str | None = None) -> Stream:
        """Replace and save the rules that clients have drawn at the source of a stream.

        Args:
            id: of the stream.
            drawn: all of them; none deletes them.
            before: version of those that the client knows, see `RuleBook.version`; None: whatever they are.

        Returns:
            the stream.

        Raises:
            NotFound: there is no such stream.
            Forbidden: the operator wants none.
            Changed: there are other ones than the client knows.
            UsageError: they do not fit the stream's model.
            SinkError: they cannot be saved.
        """
        if not self._settings.draw_rules:
            raise Forbidden("lines and zones cannot be drawn here; the operator can allow it by `draw-rules: true`")
        with self._drawing:
            stream = self.get(id)
            if before is not None and before != stream.rules.version:
                raise Changed("the rules have been changed by somebody else meanwhile")
            stream.rules.check(drawn)
            with self._lock:
                source = next((key[0] for key, each in self._streams.items() if each is stream), None)
            if source is None:
                raise NotFound(f"there is no stream {id[:80]!r}")
            self._drawn.save(source, drawn)
            with self._lock:
                same = [each for key, each in self._streams.items() if key[0] == source]
            for each in same:  # with other models
                each.draw(drawn)
        return stream

    async def check(self, source: str) -> Permitted:
        """Check a source with `check_source`, which may have to ask a host that the client names: apart from all else.

        Raises:
            Forbidden: the source is not for clients.
            NotFound: its host is not known, or does not answer.
            Busy: as many hosts are being asked as may be.
        """
        entry = self._book.entries.get(source)
        if entry is not None:
            return as_named(source, entry.source)  # if its address was added, it is checked where it connects
        return await self.check_address(source)

    async def check_address(self, uri: str) -> Permitted:
        """As `check`, of something that is not the name of a source."""
        settings = self._book.settings.model_copy(update={"sources": {}})
        host = host_of(uri, settings)
        if host is None:
            return check_source(uri, settings)
        return await self._questions.ask(host, lambda: check_source(uri, settings))

    def open(self, source: str, model: str | None = None, found: Permitted | None = None) -> tuple[Stream, bool]:
        """The stream of a source, which is opened if it is not open, or not any more.

        Returns at once where the model is loaded; the stream then connects by itself, and its state tells how it goes.

        Args:
            source: a name that the operator gave, a URL or a camera that clients may open.
            model: name of a model; None: the default one.
            found: what `check_source` says of the source, if it was asked already.

        Returns:
            the stream, and whether it is new.

        Raises:
            Forbidden: the source is not for clients.
            Busy: as many streams as may be are open, or have not ended yet.
            PerceptionError: the model cannot be had.
        """
        if source not in self._book.entries:
            found = found or check_source(source, self._book.settings)
        scheduler = self._models.scheduler(model)
        make = partial(self._make, source, found, model or self._models.default, scheduler)
        made = make()
        if made is None and self._making_room.acquire(blocking=False):  # one waits, and not all
            try:
                deadline = time.monotonic() + ENDING_S
                while made is None and time.monotonic() < deadline:
                    self._closing.wait(0.02)  # for a thread to end, which nothing tells
                    made = make()
            finally:
                self._making_room.release()
        if made is None:
            raise Busy(f"{self.limit} streams are open or being closed, which is the limit", 10.0)
        return made

    def _make(
        self, source: str, found: Permitted | None, model: str, scheduler: Scheduler
    ) -> tuple[Stream, bool] | None:
        """The stream of a source, and whether it is new; None where there is no place yet."""
        over: list[Stream] = []
        try:
            with self._lock:
                # Under the lock, so that `follow` finds a stream that is made of what has just changed.
                entry = self._book.entries.get(source)
                found = found if entry is None else as_named(source, entry.source)
                if found is None:
                    raise NotFound(f"there is no source {source[:80]!r} any more")
                if kind_of(found.uri) == "stdin":
                    raise UsageError("a server cannot stream standard input", found.name)
                # One spelling of a URL, so that a camera is open once.
                key = (found.uri if entry is None else source, model)
                stream = self._streams.get(key)
                if stream is not None and not stream.over:
                    stream.touch()
                    return stream, False
                if stream is not None:
                    over.append(self._streams.pop(key))
                # The same source with another model: a camera cannot be opened twice, and nobody watches the other.
                over += [self._streams.pop(k) for k, s in [*self._streams.items()] if k[0] == key[0] and not s.viewers]
                limit = self.limit
                if len(self._streams) >= limit:
                    over += self._take_idle(0.0, most=1)  # one that nobody watches gives its place
                self._ending = [each for each in self._ending if each.alive] + over
                if self._closing.is_set():
                    raise Busy("the server is stopping")
                if len(self._streams) >= limit:
                    raise Busy(f"{limit} streams are open, which is the limit", 10.0)
                if len(self._streams) + len(self._ending) >= limit:
                    return None
                plain = model == self._models.default
                made = self._streams[key] = self._maker.make(key[0], source, found, scheduler, plain)
                return made, True
        finally:
            self._end(over)

    def follow(self, before: Mapping[str, Entry]) -> None:
        """Make the open streams follow a change of the book; those of sources that stay the same are not touched.

        Args:
            before: its entries before the change.
        """
        now, settings = self._book.entries, self._book.settings
        over: list[Stream] = []
        changed: list[tuple[tuple[str, str], Stream, Entry]] = []
        with self._lock:
            for key, stream in [*self._streams.items()]:
                was, entry = before.get(key[0]), now.get(key[0])
                address = key[0] if entry is None else entry.source.uri
                confined = was is None if entry is None else entry.added
                if (
                    (was is None) != (entry is None)
                    or (was is not None and entry is not None and not entry.opens_like(was))
                    or (confined and not may_be_allowed(address, settings))
                ):
                    over.append(self._streams.pop(key))
                elif was is not None and entry is not None and was != entry:
                    changed.append((key, stream, entry))
            self._ending += over
        self._end(over)
        for name in before.keys() - now.keys():
            if before[name].added:  # another one of that name is another one
                self._drawn.save(name, Rules())
        for key, stream, entry in changed:
            stream.adjust(**entry.pace)
            if before[key[0]].source.publish != entry.source.publish and key[1] == self._models.default:
                publish_to(stream, entry.source.publish)
            if stream.rules.fixed != entry.rules:
                stream.fix(entry.rules)

    def get(self, id: str) -> Stream:
        """The stream of that id.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            for stream in self._streams.values():
                if stream.id == id:
                    stream.touch()
                    return stream
        raise NotFound(f"there is no stream {id[:80]!r}; it may have been closed because it had no viewers")

    def of(self, name: str) -> Stream | None:
        """The stream of a source that has a name, if it is open: with the default model, or else with another."""
        with self._lock:
            found = self._streams.get((name, self._models.default))
            return found or next((stream for key, stream in self._streams.items() if key[0] == name), None)

    @property
    def streams(self) -> list[Stream]:
        """All of them, those included that have ended but a moment ago."""
        with self._lock:
            return [*self._streams.values()]

    def remove(self, id: str) -> None:
        """Close the stream of that id for all its viewers.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            key = next((key for key, stream in self._streams.items() if stream.id == id), None)
            stream = None if key is None else self._streams.pop(key)
            if stream is not None:
                self._ending.append(stream)
        if stream is None:
            raise NotFound(f"there is no stream {id[:80]!r}")
        self._end([stream])

    @contextmanager
    def viewer(self, client: str = "") -> Iterator[None]:
        """Count a viewer of any stream while it is there.

        Args:
            client: who it is, see `perception.server.edge.places.client_of`.

        Raises:
            Busy: there are as many as may be, or as one client may have.
        """
        with self._viewers.take(client), self._metrics.viewer("stream"):
            yield

    def readings(self) -> list[tuple[str, Sequence[Reading]]]:
        """What the rules of each stream say now, by the stream's name."""
        return [(stream.name, readings) for stream in self.streams if (readings := stream.readings)]

    def close(self) -> None:
        """Finish all recordings and close all streams."""
        self._closing.set()
        with self._lock:
            streams = [*self._streams.values()]
            self._streams.clear()
        self.recordings.close()
        self._end(streams)
        self._janitor.join()

    def _close_idle(self) -> None:
        cleaned, given_back = -CLEANING_S, time.monotonic()
        while not self._closing.wait(min(1.0, self._idle_s / 4)):
            with self._lock:
                idle = self._take_idle(self._idle_s)
                self._ending = [stream for stream in self._ending if stream.alive] + idle
            self._end(idle)
            if time.monotonic() - cleaned > CLEANING_S:
                self.recordings.delete_old()
                if self._footage is not None:
                    self._footage.clean()
                cleaned = time.monotonic()
            if time.monotonic() - given_back > GIVING_BACK_S:
                give_back()
                given_back = time.monotonic()

    def _take_idle(self, seconds: float, most: int | None = None) -> list[Stream]:
        """Take out those in which nobody took an interest for so long, the longest first. Under the lock."""
        now = self._now()
        idle = [k for k, s in self._streams.items() if not s.viewers and now - s.touched > seconds]
        idle.sort(key=lambda key: self._streams[key].touched)
        return [self._streams.pop(key) for key in idle[:most]]

    def _end(self, streams: list[Stream]) -> None:
        for stream in streams:
            stream.close(wait=False)  # all at once: each may wait for a read to end
        for stream in streams:
            stream.close()
            if stream.publication is not None:
                stream.publication.close()
            self._metrics.stream_gone(stream.id)
