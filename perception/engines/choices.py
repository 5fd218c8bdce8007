"""What was measured once, remembered: which way of running a model is the fastest on this machine."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from perception.common.files import write_atomic

KEPT = 200
"""How many choices are remembered; the oldest are forgotten first."""

_log = logging.getLogger("perception")


def choices_file() -> Path:
    """Where choices are remembered; it may not exist."""
    return Path(platformdirs.user_cache_dir("perception")) / "choices.json"


def recall(circumstances: Mapping[str, Any]) -> dict[str, float] | None:
    """What was measured in these very circumstances, or None.

    Args:
        circumstances: all that the times depend on, as plain data for JSON.

    Returns:
        Milliseconds by the name of what was measured.
    """
    found = _read().get(_key(circumstances))
    if not isinstance(found, dict) or not isinstance(found.get("ms"), dict):
        return None
    times = {str(name): ms for name, ms in found["ms"].items() if isinstance(ms, (int, float))}
    return times or None


def remember(circumstances: Mapping[str, Any], times: Mapping[str, float]) -> None:
    """Remember what was measured. Where that cannot be written, it is measured again next time."""
    kept = _read()
    key = _key(circumstances)
    kept.pop(key, None)  # what is new stands last
    kept[key] = {**circumstances, "ms": {name: round(ms, 3) for name, ms in times.items()}}
    text = json.dumps(dict(list(kept.items())[-KEPT:]), indent=1)
    path = choices_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        _log.debug("what was measured is not kept: %s: %s", path, error.strerror or error)


def _key(circumstances: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(circumstances), sort_keys=True).encode()).hexdigest()[:32]


def _read() -> dict[str, Any]:
    try:
        data = json.loads(choices_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged
        return {}
    return data if isinstance(data, dict) else {}
