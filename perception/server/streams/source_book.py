"""The sources that have a name, while the server runs: those of the settings, and those that were added to them.

book = SourceBook(settings, folder / "sources.json")
book.put("gate", AddedSource(uri="rtsp://cam1.local/stream"))    # kept in the file, there again after a restart
book.pause("yard", True)                                         # any source, also one of the settings
book.reload(make_settings(...))                                  # the settings have changed

A name in the settings goes before the same name among the added ones, which are kept and come back once it is gone.
What was said of pausing a source of the settings holds until the settings themselves say something else of it.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perception.common.files import write_atomic
from perception.common.private import private_folder
from perception.common.strict import faults_in
from perception.errors import SinkError, UsageError
from perception.rules.settings import Rules, read_rules
from perception.server.problems import Conflict, Forbidden, NotFound
from perception.server.settings import AddedSource, NamedSource, ServerSettings

log = logging.getLogger("perception")

MOST_ADDED = 256
"""Sources that can be added."""

MOST_BYTES = 4 << 20
"""A larger file is none of ours."""

_NAME = re.compile(r"(?!\d+$)\w[\w .-]{0,63}")


@dataclass(frozen=True)
class Entry:
    """A source as it is now.

    Attributes:
        source: with what was said of pausing it.
        rules: the operator's.
    """

    source: NamedSource
    rules: Rules

    @property
    def added(self) -> bool:
        """True where the settings do not have it."""
        return isinstance(self.source, AddedSource)

    @property
    def pace(self) -> dict[str, Any]:
        """What `Stream.adjust` takes."""
        return {name: getattr(self.source, name) for name in ("fps", "priority", "paused", "decode", "every")}

    def opens_like(self, other: Entry) -> bool:
        """Whether both are the same to whoever connects to them."""
        return self._opened == other._opened

    @property
    def _opened(self) -> tuple[object, ...]:
        source = self.source
        return self.added, source.uri, source.loop, source.start, source.duration


class SourceBook:
    """Sources by name. Safe to use from any thread.

    Args:
        settings: of the server, with sources of their own.
        path: JSON file of what is added and paused; None: it is not kept.

    Raises:
        UsageError: a rules file of a source cannot be used.
    """

    def __init__(self, settings: ServerSettings, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._added: dict[str, AddedSource] = {}
        self._paused: dict[str, _Pausing] = {}
        self._given = settings
        self._fixed = _rules_of(settings)
        self._load()
        for name in self._added.keys() & settings.sources.keys():
            log.warning("the added source %s is left out: the configuration has one of that name", name)
        self._update()

    @property
    def settings(self) -> ServerSettings:
        """The settings with all sources that there are now; another object after each change."""
        return self._settings

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All sources, those of the settings first; another mapping after each change, never changed itself."""
        return self._entries

    def put(self, name: str, source: AddedSource) -> None:
        """Add a source, or replace one that was added.

        Raises:
            UsageError: it is no name for a source.
            Forbidden: the settings have a source of that name.
            Conflict: as many as may be are there.
            SinkError: it cannot be saved.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                "a name has 1 to 64 letters, digits, spaces, '_', '.' or '-', begins with one of the first two, and is "
                "no number"
            )
        with self._lock:
            self._check_own(name)
            if name not in self._added and len(self._added) >= MOST_ADDED:
                raise Conflict(f"{MOST_ADDED} sources have been added, which is the limit")
            self._commit({**self._added, name: source}, self._paused)

    def remove(self, name: str) -> None:
        """Remove a source that was added.

        Raises:
            NotFound: there is none of that name.
            Forbidden: the settings have it.
            SinkError: that cannot be saved.
        """
        with self._lock:
            self.get(name)
            self._check_own(name)
            self._commit({each: source for each, source in self._added.items() if each != name}, self._paused)

    def pause(self, name: str, paused: bool) -> None:
        """Pause any source, or let it go on.

        Raises:
            NotFound: there is none of that name.
            SinkError: that cannot be saved.
        """
        with self._lock:
            entry = self.get(name)
            if entry.added:
                source = self._added[name].model_copy(update={"paused": paused})
                self._commit({**self._added, name: source}, self._paused)
            else:
                said = _Pausing(paused, self._given.sources[name].paused)
                others = {each: pausing for each, pausing in self._paused.items() if each != name}
                self._commit(self._added, others | ({name: said} if said.paused != said.given else {}))

    def get(self, name: str) -> Entry:
        """The source of that name.

        Raises:
            NotFound: there is none.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f"there is no source {name[:80]!r}")
        return entry

    def reload(self, settings: ServerSettings) -> None:
        """Take the sources, and what clients may open, from other settings, and their rules from the files anew.

        Raises:
            UsageError: a rules file of a source cannot be used; nothing has changed.
        """
        fixed = _rules_of(settings)
        with self._lock:
            opened = {name: getattr(settings, name) for name in RELOADED}
            self._given = self._given.model_copy(update=opened)
            self._fixed = fixed
            self._update()

    def _check_own(self, name: str) -> None:
        if name in self._given.sources:
            raise Forbidden(
                f"{name!r} is in the configuration file, and is changed or removed there; it can be paused here"
            )

    def _commit(self, added: dict[str, AddedSource], paused: dict[str, _Pausing]) -> None:
        """Save first: what cannot be saved does not happen."""
        if self._path is not None:
            kept = {
                "sources": {name: source.model_dump(exclude_defaults=True) for name, source in added.items()},
                "paused": {name: {"paused": each.paused, "given": each.given} for name, each in paused.items()},
            }
            try:
                private_folder(self._path.parent)
                write_atomic(self._path, json.dumps(kept, indent=1).encode(), private=True)
            except OSError as error:
                raise SinkError(f"the sources cannot be saved: {error.strerror}") from None
        self._added, self._paused = added, paused
        self._update()

    def _update(self) -> None:
        given = dict(self._given.sources)
        self._paused = {name: said for name, said in self._paused.items() if name in given}
        self._paused = {name: said for name, said in self._paused.items() if said.given == given[name].paused}
        for name, said in self._paused.items():
            given[name] = given[name].model_copy(update={"paused": said.paused})
        sources = {**given, **{name: source for name, source in self._added.items() if name not in given}}
        self._settings = self._given.model_copy(update={"sources": sources})
        self._entries = {name: Entry(source, self._fixed.get(name, Rules())) for name, source in sources.items()}

    def _load(self) -> None:
        data: Any = None
        if self._path is None:
            return
        try:
            if self._path.stat().st_size > MOST_BYTES:
                raise ValueError("it is too large")
            data = json.loads(self._path.read_bytes())
            if not isinstance(data, dict):
                raise ValueError("it is no JSON object")
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read, and is set aside as *.unreadable: %s", self._path.name, error)
            with suppress(OSError):
                self._path.replace(self._path.with_name(f"{self._path.name}.unreadable"))
            return
        self._added = _read_added(data.get("sources"))
        self._paused = _read_pausing(data.get("paused"))


RELOADED = ("sources", "allow", "cameras", "edit_sources")
"""The settings that can change while the server runs."""


@dataclass(frozen=True)
class _Pausing:
    """What was said of a source of the settings, and what they said of it then."""

    paused: bool
    given: bool


def _rules_of(settings: ServerSettings) -> dict[str, Rules]:
    return {name: read_rules(source.rules) for name, source in settings.sources.items() if source.rules is not None}


def _read_added(data: Any) -> dict[str, AddedSource]:
    found: dict[str, AddedSource] = {}
    for name, values in data.items() if isinstance(data, dict) else ():
        try:
            if len(found) < MOST_ADDED and _NAME.fullmatch(name):
                found[name] = AddedSource.model_validate(values)
        except ValidationError as error:
            log.warning("the added source %s is left out: %s", name, faults_in(error))
    return found


def _read_pausing(data: Any) -> dict[str, _Pausing]:
    return {
        name: _Pausing(bool(each.get("paused")), bool(each.get("given")))
        for name, each in (data.items() if isinstance(data, dict) else ())
        if isinstance(each, dict)
    }
