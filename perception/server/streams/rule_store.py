"""Drawn rules on disk: one JSON file for each source, by which they are there again when the server is."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from pathlib import Path

from perception.common.files import write_atomic
from perception.common.private import private_folder
from perception.errors import PerceptionError, SinkError
from perception.rules.settings import Rules, make_rules
from perception.server.problems import Conflict

log = logging.getLogger("perception")

MOST_FILES = 1000
"""Sources of which rules are kept; clients may open addresses without end."""

MOST_BYTES = 1 << 20
"""A larger file is none of ours."""


class RuleStore:
    """Rules that clients draw, by source. Safe to use from any thread.

    Names of files are digests: of the address of a source, which may hold a password, nothing is written.

    Args:
        folder: where they are; made when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def load(self, source: str) -> Rules:
        """The rules of a source; none where none were saved, or what was saved cannot be read, which is logged."""
        path = self._path(source)
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError("it is too large")
            return make_rules(json.loads(path.read_bytes()), path, empty=True)
        except FileNotFoundError:
            return Rules()
        except (OSError, ValueError, RecursionError, PerceptionError) as error:
            log.warning("saved rules are left out: %s: %s", path.name, error)
            return Rules()

    def save(self, source: str, rules: Rules) -> None:
        """Keep the rules of a source in place of those before; none: forget them.

        Raises:
            Conflict: rules of as many sources as may be are kept.
            SinkError: they cannot be written.
        """
        path = self._path(source)
        try:
            with self._lock:
                if not len(rules):
                    path.unlink(missing_ok=True)
                    return
                folder = private_folder(self._folder)
                if not path.exists() and sum(1 for _ in folder.glob("*.json")) >= MOST_FILES:
                    raise Conflict(f"rules of {MOST_FILES} sources are kept already, which is the limit")
                write_atomic(path, json.dumps(rules.as_dict(), indent=1).encode(), private=True)
        except OSError as error:
            raise SinkError(f"rules cannot be saved: {error.strerror}") from None

    def _path(self, source: str) -> Path:
        return self._folder / f"{hashlib.sha256(source.encode('utf-8', 'backslashreplace')).hexdigest()[:32]}.json"
