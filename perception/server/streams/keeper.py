"""Keeps the sources open that are to be open always."""

from __future__ import annotations

import logging
import threading

from perception.errors import PerceptionError
from perception.server.streams.hub import StreamHub
from perception.server.streams.source_book import SourceBook

log = logging.getLogger("perception")

KEEPING_S = 5.0
"""Streams that are to be open always are looked at so often, which also tells that somebody wants them."""


class Keeper:
    """Opens sources with ``keep`` or ``publish``, and opens them again when they have ended.

    Args:
        hub: what opens them.
        book: the sources.
    """

    def __init__(self, hub: StreamHub, book: SourceBook) -> None:
        self._hub = hub
        self._book = book
        self._told: dict[str, str] = {}
        self._changed = threading.Condition()
        self._look = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it has been closed by then; returns at once."""
        with self._changed:
            if not self._closed:
                self._thread = threading.Thread(target=self._run, name="perception-keep", daemon=True)
                self._thread.start()

    def look(self) -> None:
        """The sources have changed: look now."""
        with self._changed:
            self._look = True
            self._changed.notify_all()

    def close(self) -> None:
        """End. The streams stay as they are."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            kept = {name: entry for name, entry in self._book.entries.items() if entry.source.kept}
            self._told = {name: line for name, line in self._told.items() if name in kept}
            for name in kept:
                self._open(name)
            with self._changed:
                self._changed.wait_for(lambda: self._look or self._closed, KEEPING_S)
                self._look = False

    def _open(self, name: str) -> None:
        if self._closed:
            return
        try:
            self._hub.open(name)
            self._told.pop(name, None)
        except PerceptionError as error:
            if self._told.get(name) != str(error) and not self._closed:
                log.warning("stream %s: cannot be kept open: %s", name, error)
                self._told[name] = str(error)
