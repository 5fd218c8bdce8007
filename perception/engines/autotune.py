"""The autotune cache: how fast each way of running a model was when it was measured on this machine."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from perception.common.files import write_atomic
from perception.common.private import private_cache

KEPT = 200
"""Measurements that are kept at most; the oldest are dropped first."""

_log = logging.getLogger("perception")


def autotune_file() -> Path:
    """Return the path of the autotune cache; the file may not exist."""
    return Path(platformdirs.user_cache_dir("perception")) / "autotune.json"


def load_times(conditions: Mapping[str, Any]) -> dict[str, float] | None:
    """Load the times measured in these very conditions, or None.

    Args:
        conditions: all that the times depend on, as plain data for JSON.

    Returns:
        Milliseconds by the name of what was measured.
    """
    found = _read().get(_key(conditions))
    if not isinstance(found, dict) or not isinstance(found.get("ms"), dict):
        return None
    times = {str(name): ms for name, ms in found["ms"].items() if isinstance(ms, (int, float))}
    return times or None


def save_times(conditions: Mapping[str, Any], times: Mapping[str, float]) -> None:
    """Remember what was measured. Where that cannot be written, it is measured again next time."""
    kept = _read()
    key = _key(conditions)
    kept.pop(key, None)  # what is new stands last
    kept[key] = {**conditions, "ms": {name: round(ms, 3) for name, ms in times.items()}}
    text = json.dumps(dict(list(kept.items())[-KEPT:]), indent=1)
    path = autotune_file()
    try:
        private_cache()
        write_atomic(path, text.encode(), private=True)
    except OSError as error:
        _log.debug("what was measured is not kept: %s: %s", path, error.strerror or error)


def _key(conditions: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(conditions), sort_keys=True).encode()).hexdigest()[:32]


def _read() -> dict[str, Any]:
    try:
        data = json.loads(autotune_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged
        return {}
    return data if isinstance(data, dict) else {}
