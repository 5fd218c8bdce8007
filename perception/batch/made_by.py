"""What outputs depend on besides their source: the model, the settings, and the version of the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from perception.annotate.outputs import Outputs
from perception.annotate.settings import Annotation
from perception.common.files import sha256_of
from perception.common.version import __version__
from perception.errors import UsageError
from perception.model import Model

ENCODER_THREADS = 2
"""x264 encodes other bits with another number, so that it does not depend on the machine."""

_WITHOUT_EFFECT = (
    "model",
    "card",
    "engine",
    "precision",
    "device",
    "threads",
    "sink_options",
    "source_options",
    "rules",
)


def fixed(annotation: Annotation, threads: int) -> Annotation:
    """Return an annotation whose outputs depend on nothing but sources and settings.

    Args:
        annotation: as it was given.
        threads: how many there are where it does not say it.
    """
    options = {kind: dict(given) for kind, given in annotation.sink_options.items()}
    options.setdefault("video", {}).setdefault("threads", ENCODER_THREADS)
    options.setdefault("jsonl", {}).setdefault("timings", False)
    return replace(annotation, threads=annotation.threads or threads, sink_options=options)


def decided(annotation: Annotation, model: Model) -> Annotation:
    """Return an annotation in which nothing is left to be chosen, as a model has chosen that was loaded by it."""
    precision = annotation.precision
    if precision == "auto" and model.card.quantization is None:
        precision = model.engine.precision  # type: ignore[assignment]
    return replace(annotation, engine=model.engine.name, precision=precision)


def made_by(annotation: Annotation, model: Model, outputs: Outputs) -> dict[str, Any]:
    """Return what the outputs depend on, as JSON has it.

    Raises:
        UsageError: the file of the rules cannot be read.
    """
    settings = {name: value for name, value in asdict(annotation).items() if name not in _WITHOUT_EFFECT}
    sources = {name: v for name, v in annotation.source_options.items() if name not in ("timeout", "decoder")}
    settings |= {"source": sources, "outputs": sorted(outputs.given()), "rules": _digest(annotation.rules)}
    settings |= {"sinks": {kind: dict(options) for kind, options in annotation.sink_options.items()}}
    return {
        "perception": __version__,
        "model": {
            "name": model.card.name,
            "version": model.card.version,
            "sha256": sha256_of(model.engine.path),
            "card": _digest(annotation.card),
            "engine": model.engine.name,
            "precision": model.engine.precision,
        },
        "settings": json.loads(json.dumps(settings, default=list)),  # tuples become lists, as when it is read again
    }


def identity(made: Mapping[str, Any]) -> str:
    """Return a short name of what outputs depend on; the version of the package is no part of it."""
    text = json.dumps([made["model"], made["settings"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of what has changed."""
    changed = []
    for part, title in (("model", "model "), ("settings", "")):
        old, new = flat(before.get(part, {})), flat(now[part])
        changed += [f"{title}{name}" for name in {**old, **new} if old.get(name) != new.get(name)]
    return changed


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return settings of settings by names of several words: ``options score threshold``."""
    made: dict[str, Any] = {}
    for name, value in settings.items():
        words = f"{above} {name.replace('_', ' ')}".strip()
        made |= flat(value, words) if isinstance(value, dict) else {words: value}
    return made


def _digest(path: str | Path | None) -> str | None:
    if path is None or not Path(path).is_file():  # the name of a card that ships
        return None if path is None else str(path)
    try:
        return sha256_of(Path(path))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", path) from None
