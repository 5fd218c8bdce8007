"""Changes of the sources that have a name, while the server runs: the book is written, and the open streams follow.

Streams of sources that stay the same are not touched: they lose no frame, and their rules and tracks go on. What
changes of a source but its address, its rate for one, changes under the running stream.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from perception.errors import PerceptionError
from perception.rules.settings import read_rules
from perception.server.edge.allowlist import check_patterns
from perception.server.inference.models import Models
from perception.server.memory import cameras_that_fit
from perception.server.problems import Conflict, Forbidden
from perception.server.settings import AddedSource, ServerSettings
from perception.server.streams.hub import StreamHub
from perception.server.streams.keeper import Keeper
from perception.server.streams.source_book import RELOADED, Entry, SourceBook
from perception.server.streams.stream import Stream

log = logging.getLogger("perception")


class Roster:
    """Adds, changes, pauses and removes sources. Safe to use from any thread.

    Args:
        book: the sources.
        hub: their streams.
        keeper: what keeps some of them open.
        models: tells what the default model gives, for rules.
    """

    def __init__(self, book: SourceBook, hub: StreamHub, keeper: Keeper, models: Models) -> None:
        self._book = book
        self._hub = hub
        self._keeper = keeper
        self._models = models
        self._changing = threading.Lock()

    @property
    def editable(self) -> bool:
        """Whether clients may change anything."""
        return self._book.settings.editable

    def check_editable(self) -> None:
        """Check that clients may change anything.

        Raises:
            Forbidden: they may not.
        """
        if not self.editable:
            why = "without credentials nobody may" if self._book.settings.edit_sources is None else "nobody may"
            raise Forbidden(f"{why} change the sources here; the operator can allow it by `edit-sources: true`")

    def put(self, name: str, source: AddedSource) -> bool:
        """Add a source, whose address has been checked, or replace one that was added; whether it is new.

        Raises:
            PerceptionError: see `SourceBook.put`.
            Conflict: there is no memory for one more.
        """
        with self._change() as before:
            if name not in before:
                fit = cameras_that_fit()
                if fit is not None and fit < 1:
                    raise Conflict("there is no memory for one more camera on this machine")
            self._book.put(name, source)
        return name not in before

    def remove(self, name: str) -> None:
        """Remove a source that was added; its streams end, and what was drawn at it goes.

        Raises:
            PerceptionError: see `SourceBook.remove`.
        """
        with self._change():
            self._book.remove(name)

    def pause(self, name: str, paused: bool) -> None:
        """Pause any source, or let it go on.

        Raises:
            PerceptionError: see `SourceBook.pause`.
        """
        with self._change():
            self._book.pause(name, paused)

    def stream(self, name: str) -> Stream | None:
        """The stream of a source, if it is open."""
        return self._hub.of(name)

    def open(self, name: str) -> Stream:
        """The stream of a source, which is opened if it is not open.

        Raises:
            PerceptionError: see `StreamHub.open`.
        """
        return self._hub.open(name)[0]

    def entries(self) -> dict[str, Entry]:
        """All sources by name, those of the settings first."""
        return dict(self._book.entries)

    def reload(self, read: Callable[[], ServerSettings]) -> None:
        """Apply what has changed in the configuration; one that is wrong changes nothing, and one line of the log
        says why.

        Args:
            read: reads it anew.
        """
        try:
            settings = read()
            check_patterns(settings.allow)
            ruled = [source.rules for source in settings.sources.values() if source.rules is not None]
            for path in ruled:
                read_rules(path).check(self._models.card())
            with self._change() as before:
                self._book.reload(settings)
        except PerceptionError as error:
            log.error("the configuration stays as it was: %s", error)
            return
        log.warning("the configuration was read again: %s", _told(before, self._book.entries))
        late = _differing(self._book.settings, settings)
        if late:
            log.warning("what has changed in %s holds after a restart", ", ".join(late))

    @contextmanager
    def _change(self) -> Iterator[dict[str, Entry]]:
        """Within it the book changes; afterwards the streams follow. Gives the entries before."""
        with self._changing:
            before = dict(self._book.entries)
            yield before
            self._hub.follow(before)
        self._keeper.look()


def _differing(now: ServerSettings, wanted: ServerSettings) -> list[str]:
    """The settings that differ though they cannot change while the server runs."""
    return [
        name.replace("_", "-")
        for name in ServerSettings.model_fields
        if name not in RELOADED and getattr(now, name) != getattr(wanted, name)
    ]


def _told(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> str:
    added, removed = now.keys() - before.keys(), before.keys() - now.keys()
    changed = [name for name in now.keys() & before.keys() if now[name] != before[name]]
    counts = {"added": len(added), "removed": len(removed), "changed": len(changed)}
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    return f"sources: {', '.join(parts)}" if parts else "no source has changed"
