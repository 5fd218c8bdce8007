"""Preparations for starting a server: its first source, and warnings for its operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.annotate import stem
from perception.server.settings import ServerSettings
from perception.sources import open_source
from perception.sources.clips import find_clip
from perception.sources.uri import kind_of


def with_source(values: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Add a first source to settings: the given one, those of the settings, or else a street clip.

    Args:
        values: settings by name.
        source: what `perception.sources.open_source` takes.

    Raises:
        SourceError: it is a file, and cannot be read.
    """
    named = values.get("sources") or {}
    if source is not None:
        if kind_of(source) in ("file", "images"):
            open_source(source).close()  # a wrong name is told here, and not by a page that shows nothing
            source = str(Path(source).absolute())
        # In front: the page begins with the first one.
        name = stem(source)
        return {**values, "sources": {name: source, **{other: uri for other, uri in named.items() if other != name}}}
    if named:
        return values
    clip = find_clip()
    return {**values, "sources": {clip.name: {"uri": clip.uri, **clip.options}}}


def warnings(url: str, settings: ServerSettings) -> list[str]:
    """Return warnings about listening beyond this machine, one per line."""
    who = "and has the credentials" if settings.guarded else "WITHOUT any credentials"
    lines = [
        f"Listening on {settings.host}: anyone who can reach this machine over the network {who} can see the page "
        "and its cameras, and upload videos."
    ]
    if settings.guarded:
        lines.append(
            "The connection is not encrypted: put a TLS proxy in front of it on networks that you do not trust."
        )
    lines.append("Browsers allow webcam access only on https:// pages and localhost.")
    return lines
