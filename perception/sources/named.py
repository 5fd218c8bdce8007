"""A source under another name: that of which it is a copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from perception.sources.base import Source
from perception.types import Frame


class NamedSource(Source):
    """The frames of a source, as if it was opened under another name.

    Args:
        source: is closed with this one.
        name: that its frames carry.
    """

    def __init__(self, source: Source, name: str) -> None:
        super().__init__()
        self._source = source
        self._name = name
        self.info = replace(source.info, uri=name)

    def _read(self) -> Iterator[Frame]:
        try:
            for frame in self._source:
                yield frame.at(source=self._name)
        finally:
            self.corrupt = self._source.corrupt
            self.unreadable = [self._name] if self._source.unreadable else []

    def _interrupt(self) -> None:
        self._source.close()
