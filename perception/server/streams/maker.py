"""Makes the streams of one server, of what is known of their sources."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence

from perception.card import ModelCard
from perception.common.bounds import Bounds
from perception.errors import PerceptionError
from perception.footage.recorder import FootageRecorder
from perception.footage.store import FootageStore
from perception.server.edge.allowlist import Permitted, check_source
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import Metrics
from perception.server.rule_book import RuleBook
from perception.server.settings import ServerSettings
from perception.server.streams.rule_store import RuleStore
from perception.server.streams.source_book import SourceBook
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from perception.server.streams.views import PLAIN
from perception.server.viewers.publication import Publication
from perception.sources import open_source
from perception.sources.base import Source
from perception.sources.packets import PacketRing
from perception.sources.uri import kind_of
from perception.stages.factories import StageFactory
from perception.types import Event

log = logging.getLogger("perception")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def publish_to(stream: Stream, addresses: Sequence[str]) -> None:
    """Publish a stream where its operator wants it, and no more where it was; what is wrong there is no fault of it."""
    if stream.publication is not None:
        stream.publication.close()
    stream.publication = None
    if addresses:
        try:
            stream.publication = Publication(stream, addresses)
        except PerceptionError as error:
            log.warning("stream %s: not published: %s", stream.id, error)


class StreamMaker:
    """Makes streams. Safe to use from any thread.

    Args:
        settings: of the server.
        book: the sources that have a name.
        drawn: the rules that clients have drawn.
        metrics: counters of the server.
        stages: of the operator, for every stream.
        publish: is given all their events; see `Stream`.
        footage: where clips and snapshots of these events are kept; None: nowhere.
        timeouts: of the streams.
        clock: see `Stream`.
    """

    def __init__(
        self,
        settings: ServerSettings,
        book: SourceBook,
        drawn: RuleStore,
        metrics: Metrics,
        *,
        stages: Sequence[StageFactory] = (),
        publish: Callable[[Event], None] | None = None,
        footage: FootageStore | None = None,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._book = book
        self._drawn = drawn
        self._metrics = metrics
        self._stages = stages
        self._publish = publish
        self._footage = footage
        self._timeouts = timeouts or Timeouts()
        self._now = clock

    def make(self, key: str, source: str, found: Permitted, scheduler: Scheduler, plain: bool) -> Stream:
        """A stream, which connects by itself.

        Args:
            key: what its source is known by, the same however it is spelled.
            source: a name of the book, or a URL or a camera that clients may open.
            found: what it stands for.
            scheduler: of its model.
            plain: its model is the default one: a name of the book may be its id, and it is published.

        Raises:
            UsageError: a stage refuses the model.
        """
        entry, kind, card = self._book.entries.get(source), kind_of(found.uri), scheduler.model.card
        bounds = Bounds(self._settings.limits.stream_pixels)
        deliver = self._settings.events is not None and self._settings.events.drawn
        fixed = None if entry is None else entry.rules
        rules = RuleBook(card, fixed, self._drawn.load(key), deliver=deliver)
        tells = bool(self._stages or len(rules.fixed) or deliver)  # events, of which something can be kept
        footage = self._recorder(found.name, card) if tells else None
        packets = None if footage is None else footage.packets
        # The name where it can stand in a URL; else a random one, which tells nothing of an address.
        named = plain and entry is not None and _PLAIN_NAME.fullmatch(source)
        made = Stream(
            source if named else secrets.token_hex(6),
            found.name,
            lambda: self._connect(source, bounds, packets),
            scheduler,
            reconnect=kind in ("camera", "csi", "stream"),
            loop=found.loop and (kind != "stream" or not found.confined),
            metrics=self._metrics,
            timeouts=self._timeouts,
            stages=self._stages,
            rules=rules,
            bounds=bounds,
            publish=self._publish,
            footage=footage,
            clock=self._now,
            **({} if entry is None else entry.pace),
        )
        if plain and entry is not None:
            publish_to(made, entry.source.publish)
        return made

    def _recorder(self, name: str, card: ModelCard) -> FootageRecorder | None:
        clips = self._settings.clips
        if self._footage is None or clips is None:
            return None
        begin = f"{self._settings.root_path if clips.base_url is None else clips.base_url}/v1/footage/"
        return FootageRecorder(
            self._footage, clips, PLAIN.annotator(card), link=lambda file: begin + file, background=True, name=name
        )

    def _connect(self, source: str, bounds: Bounds, packets: PacketRing | None) -> Source:
        # Checked for each connection: what a host's name stands for may have changed since.
        found = check_source(source, self._book.settings)
        return open_source(
            found.uri,
            start=found.start,
            duration=found.duration,
            timeout=self._timeouts.silence,
            confined=found.confined,
            addresses=found.addresses,
            bounds=bounds,
            packets=packets,
        )
