"""The cache of built engines: keyed by everything that they depend on, verified before use.

An engine is code that runs on the GPU and, for some layers, on the CPU. So engines are read only from a folder that is
the user's own and that nobody else can write, and only if they are byte for byte what was written there.

Each engine has a manifest (JSON) beside it, which is written last: an engine without one does not exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from perception.common.files import DRAFTS, write_atomic
from perception.common.private import NotOwnError, is_own, make_folder, read_own
from perception.common.version import __version__
from perception.engines.cache import compiled_models_dir
from perception.errors import EngineError

LIMIT_BYTES = 4 << 30
"""Engines least recently used go when all together are larger."""

_FORMAT = 1
_TIMING_CACHES = 4
_ABANDONED_S = 3600

_log = logging.getLogger("perception")


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine in the cache.

    Attributes:
        key: SHA-256 of ``fields``, the name of its files.
        fields: what the engine was built from and for; empty where the manifest is damaged.
        summary: what is in it, plain data.
        size_bytes: of all its files.
        built: when, ISO 8601.
        used: when it was last taken, seconds since 1970.
        path: the engine's file.
    """

    key: str
    fields: dict[str, Any]
    summary: Any
    size_bytes: int
    built: str
    used: float
    path: Path


@dataclass(frozen=True, slots=True)
class Cached:
    """An engine, from the cache or just built.

    Attributes:
        plan: the serialized engine.
        summary: what is in it, plain data.
        path: its file; None where it could not be kept.
        built: why it was built just now, or empty where it was in the cache.
    """

    plan: bytes
    summary: Any
    path: Path | None
    built: str


class EngineCache:
    """A folder of engines.

    Args:
        folder: where; the user's cache directory if None. It is made when the first engine is kept.
        limit_bytes: engines least recently used are dropped beyond this; the newest always stays.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = folder or compiled_models_dir("tensorrt")
        self.limit_bytes = limit_bytes

    def obtain(
        self, fields: dict[str, Any], make: Callable[[], tuple[bytes, Any]], unusable: Cached | None = None
    ) -> Cached:
        """Return the engine that ``fields`` describe; ``make`` builds it if it is missing, once for all processes.

        Args:
            fields: plain data that decides what the engine is. ``model`` is its name; an entry that differs only in
                having more ``capabilities`` serves too.
            make: builds it; returns the serialized engine and plain data about it.
            unusable: one that was taken from the cache, intact, and does not work: another one takes its place.

        Raises:
            EngineError: somebody else could write into the folder; or what ``make`` raises.
        """
        found, why = self._find(fields, unusable)
        if found is not None:
            return found
        if not self._prepare():
            return Cached(*make(), None, why)
        with self._locked():
            found, why = self._find(fields, unusable)  # another process may have built it meanwhile
            if found is not None:
                return found
            damaged = unusable is not None or (self.folder / f"{key_of(fields)}.json").exists()
            _log.log(logging.WARNING if damaged else logging.INFO, "%s: building an engine: %s", fields["model"], why)
            plan, summary = make()
            path = self._write(fields, plan, summary)
            self._evict(keep=key_of(fields))
        return Cached(plan, summary, path, why)

    def holds(self, fields: dict[str, Any]) -> bool:
        """True where there is an engine that ``fields`` describe; whether it is intact shows when it is taken.

        Raises:
            EngineError: somebody else could write into the folder.
        """
        if not self.folder.is_dir():
            return False
        self._check_owner()
        return self._manifest(fields) is not None

    def entries(self) -> list[Entry]:
        """Return all engines, the one used last first. Damaged ones have no fields."""
        found = []
        for manifest in self.folder.glob("*.json"):
            try:
                used = manifest.stat().st_mtime
            except OSError:
                continue  # dropped meanwhile
            data = _parse(manifest) or {}
            size = sum(_size(path) for path in self._files(manifest.stem))
            path = manifest.with_suffix(".plan")
            found.append(
                Entry(
                    manifest.stem, data.get("fields", {}), data.get("summary"), size,
                    data.get("built", ""), used, path,
                )
            )  # fmt: skip
        return sorted(found, key=lambda e: -e.used)

    def clear(self) -> tuple[int, int]:
        """Drop everything; returns the number of engines and of bytes that went.

        Raises:
            EngineError: a file cannot be removed.
        """
        if not self.folder.is_dir():
            return 0, 0
        count, total = len(list(self.folder.glob("*.json"))), 0
        with self._locked():
            for path in sorted(self.folder.iterdir(), key=lambda p: p.suffix != ".json"):  # manifests first
                if path.name == _LOCK or not path.is_file():
                    continue
                total += _size(path)
                try:
                    path.unlink()
                except OSError as error:
                    raise EngineError(f"cannot be removed: {error.strerror or error}", path) from None
        return count, total

    def _find(self, fields: dict[str, Any], unusable: Cached | None = None) -> tuple[Cached | None, str]:
        """Find the engine; None and the reason if there is none but ``unusable``, or it cannot be used."""
        if not self.folder.is_dir():
            return None, "there is none of this model, precision and shape"
        self._check_owner()
        manifest = self._manifest(fields)
        if manifest is None:
            others = [e.fields for e in self.entries() if e.fields.get("model") == fields.get("model")]
            return None, _difference(fields, others)
        try:
            data = _parse(manifest)
            if data is None:
                return None, "the manifest in the cache is damaged"
            plan = read_own(manifest.with_suffix(".plan"))
            if key_of(data["fields"]) != manifest.stem:
                return None, "the manifest in the cache belongs to another engine"
            if len(plan) != data["bytes"]:
                return None, f"the engine in the cache is cut short ({len(plan)} of {data['bytes']} bytes)"
            if hashlib.sha256(plan).hexdigest() != data["sha256"]:
                return None, "the engine in the cache is not the one that was written there"
            if unusable is not None and plan == unusable.plan:
                return None, "the one in the cache cannot be loaded"
            summary = data["summary"]
        except (KeyError, TypeError):
            return None, "the manifest in the cache is damaged"
        except (OSError, NotOwnError) as error:
            return None, f"the engine in the cache cannot be used: {error}"
        with contextlib.suppress(OSError):  # a read-only cache is fine to read from
            os.utime(manifest)
        return Cached(plan, summary, manifest.with_suffix(".plan"), ""), ""

    def _manifest(self, fields: dict[str, Any]) -> Path | None:
        """Return the manifest of an engine that serves, or None."""
        manifest = self.folder / f"{key_of(fields)}.json"
        if manifest.exists():
            return manifest
        wider = next((e for e in self.entries() if _serves(e.fields, fields)), None)
        return None if wider is None else self.folder / f"{wider.key}.json"

    def _prepare(self) -> bool:
        """Make the folder; say whether it can be written."""
        try:
            make_folder(self.folder)  # and no more: one that others could write into is not to be trusted
            self._check_owner()
            with tempfile.TemporaryFile(dir=self.folder):
                return True
        except OSError as error:
            _log.warning("%s: engines are not cached: %s", self.folder, error.strerror or error)
            return False

    def _check_owner(self) -> None:
        status = self.folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or not is_own(status):
            raise EngineError(
                "the engine cache is not yours, or others can write to it; engines are code, so it is not used: "
                "`chmod 700` it if it is yours, else remove it",
                self.folder,
            )

    def _write(self, fields: dict[str, Any], plan: bytes, summary: Any) -> Path | None:
        key = key_of(fields)
        path = self.folder / f"{key}.plan"
        manifest = {
            "format": _FORMAT,
            "fields": fields,
            "summary": summary,
            "bytes": len(plan),
            "sha256": hashlib.sha256(plan).hexdigest(),
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "perception": __version__,
        }
        try:
            write_atomic(path, plan, private=True)
            write_atomic(path.with_suffix(".json"), json.dumps(manifest, indent=1).encode(), private=True)
        except OSError as error:
            _log.warning("%s: this engine is not cached: %s", self.folder, error.strerror or error)
            return None
        return path

    def _evict(self, keep: str) -> None:
        """Drop engines until the rest is within the limit, and what crashed processes left behind."""
        entries = self.entries()
        total = sum(e.size_bytes for e in entries)
        for entry in reversed(entries):
            if total <= self.limit_bytes:
                break
            if entry.key != keep:
                _log.info("%s: removed the least recently used engine, of %s", self.folder, entry.fields.get("model"))
                self._drop(self._files(entry.key))
                total -= entry.size_bytes
        known = {path.stem for path in self.folder.glob("*.json")}
        left = [p for p in self.folder.iterdir() if p.suffix in (".plan", ".runtime") and p.stem not in known]
        left += sorted(self.folder.glob("timing-*"), key=_age)[_TIMING_CACHES:]
        self._drop(left + [p for p in self.folder.glob(f"{DRAFTS}*") if _age(p) > _ABANDONED_S])

    def _files(self, key: str) -> list[Path]:
        """Return the files of an engine, its manifest first."""
        return [self.folder / f"{key}{suffix}" for suffix in (".json", ".plan", ".runtime")]

    def _drop(self, paths: list[Path]) -> None:
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.debug("cannot remove %s: %s", path, error.strerror or error)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process build at a time: others would disturb the measurements that an engine is optimised by."""
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _log.warning("another process is building an engine; waiting for it")
            lock.acquire()
        except (OSError, NotImplementedError) as error:  # network file systems; engines appear whole all the same
            _log.warning("%s: other processes are not waited for: it cannot be locked (%s)", self.folder, error)
        try:
            yield  # the system gives the lock back even when the process dies
        finally:
            lock.release()


_LOCK = ".lock"


def key_of(fields: dict[str, Any]) -> str:
    """SHA-256 of what decides an engine, hexadecimal."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(manifest: Path) -> dict[str, Any] | None:
    """Parse a manifest; None if it is damaged or of another format."""
    try:
        data = json.loads(read_own(manifest))
    except (OSError, ValueError, NotOwnError):
        return None
    if not isinstance(data, dict) or data.get("format") != _FORMAT or not isinstance(data.get("fields"), dict):
        return None
    return data


def _serves(have: dict[str, Any], want: dict[str, Any]) -> bool:
    """True where an engine built for more compute capabilities is otherwise the same."""
    targets = want.get("capabilities")
    if not targets or not set(targets) <= set(have.get("capabilities") or ()):
        return False
    return {**have, "capabilities": None} == {**want, "capabilities": None}


def _difference(want: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """Why an engine is not in the cache: what has changed since the one that comes nearest was built."""
    nearest: dict[str, tuple[Any, Any]] | None = None
    same = ("precision", "profile", "flavour")
    for fields in others:
        if any(fields.get(name) != want.get(name) for name in same):
            continue
        have, need = _flat(fields), _flat(want)
        changed = {k: (have.get(k), need.get(k)) for k in {*have, *need} if have.get(k) != need.get(k)}
        if nearest is None or len(changed) < len(nearest):
            nearest = changed
    if nearest is None:
        return "there is none of this model, precision and shape"
    said = [name if name == "graph" else f"{name} ({old} -> {new})" for name, (old, new) in sorted(nearest.items())]
    return f"the one in the cache differs in {', '.join(said)}"


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _age(path: Path) -> float:
    """Seconds since a file was written."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
