"""What rules saw, minute by minute, as comma-separated values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perception.card import ModelCard
from perception.errors import UsageError
from perception.events.event import Event
from perception.sinks.csv import CsvSink
from perception.sinks.files import utf8
from perception.sinks.table import ColumnType, Rows
from perception.types import Prediction, Reading

MINUTE_S = 60.0
GAP_S = 10.0
"""Seconds between two frames that count at most: a clock that goes ahead further has jumped."""

Row = tuple[Any, ...]

COLUMNS: dict[str, ColumnType] = {
    "source": "string", "start": "float64", "rule": "string", "kind": "string", "class": "string",
    "direction": "string", "count": "int64", "mean": "float64", "max": "float64",
}  # fmt: skip


class SummaryTable:
    """Rows of a minute: what happened how often, and what there was meanwhile.

    - each kind of event by rule, class and direction: ``count``; where events have a duration its ``mean`` and ``max``;
      a line has a row for each of its directions, with 0 where nobody went there;
    - ``inside`` of each zone and ``value`` of each condition: ``mean`` over the time and ``max``.

    Attributes:
        columns: type of each column, in order.
    """

    def __init__(self) -> None:
        self.columns = dict(COLUMNS)
        self._source: str | None = None
        self._begin(None)

    def _begin(self, minute: float | None) -> None:
        self._minute = minute
        self._time: float | None = None
        self._events: dict[tuple[str, str, str, str], list[float | None]] = {}
        self._levels: dict[tuple[str, str], _Level] = {}
        self._readings: Sequence[Reading] = ()

    def rows(self, prediction: Prediction) -> list[Row]:
        """Take a frame; return the rows of the minute that it ends, if it does."""
        frame = prediction.frame
        minute = frame.time // MINUTE_S * MINUTE_S
        done: list[Row] = []
        if self._minute is not None and (minute != self._minute or frame.source != self._source):
            done = self.rest()
        if self._minute is None:
            self._begin(minute)
            self._source = frame.source
        gone = 0.0 if self._time is None else frame.time - self._time
        self._time = frame.time
        self._readings = prediction.readings or ()
        for event in prediction.events:
            self._note(event)
        for reading in self._readings:
            name = "inside" if reading.kind == "zone" else "value"
            if name in reading.numbers:
                level = self._levels.setdefault((reading.name, name), _Level())
                level.add(float(reading.numbers[name]), gone if 0 < gone < GAP_S else 0.0)
        return done

    def _note(self, event: Event) -> None:
        key = (event.rule, event.kind, event.class_name or "", event.direction or "")
        self._events.setdefault(key, []).append(event.duration)

    def rest(self) -> list[Row]:
        """Return the rows of the minute that is not over, and end it."""
        if self._minute is None:
            return []
        head = (utf8(self._source or "").decode(), self._minute)
        rows: list[Row] = []
        for reading in self._readings:
            for direction in reading.numbers.get("crossed", ()):
                went = any(key[0] == reading.name and key[3] == direction for key in self._events)
                rows += [] if went else [(*head, reading.name, "crossed", "", direction, 0, None, None)]
        for key, durations in self._events.items():
            known = [d for d in durations if d is not None]
            mean = round(sum(known) / len(known), 3) if known else None
            rows.append((*head, *key, len(durations), mean, max(known) if known else None))
        for (rule, name), level in self._levels.items():
            rows.append((*head, rule, name, "", "", None, round(level.mean, 6), level.most))
        order = {reading.name: i for i, reading in enumerate(self._readings)}
        self._begin(None)
        return sorted(rows, key=lambda row: (order.get(row[2], 0), row[2:6]))


class _Level:
    """A number over some time."""

    def __init__(self) -> None:
        self.most = 0.0
        self._now = 0.0
        self._sum = self._seconds = 0.0

    def add(self, value: float, seconds: float) -> None:
        """Take a value, and the seconds for which the last one was."""
        self._sum += self._now * seconds
        self._seconds += seconds
        self._now = value
        self.most = max(self.most, value)

    @property
    def mean(self) -> float:
        return self._sum / self._seconds if self._seconds else self._now


class SummarySink(CsvSink):
    """Writes a header and the rows of `SummaryTable`: those of a minute when it is over."""

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self._summary = SummaryTable()
        self._checked = False

    def _rows_of(self, card: ModelCard | None) -> Rows:
        return self._summary

    def write(self, prediction: Prediction) -> None:
        if not self._checked and prediction.readings is None:
            raise UsageError("a summary says what rules saw, and there are none: give rules", self.where)
        self._checked = True
        super().write(prediction)

    def close(self) -> None:
        rows = self._summary.rest()
        if rows:
            self._append(rows)
        super().close()
