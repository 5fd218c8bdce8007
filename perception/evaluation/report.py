"""An evaluation as one HTML file with everything in it: tables, confusion matrix, curves, the worst pictures."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import cv2
import numpy as np

from perception.evaluation.result import Confusion, Curve, Evaluation, Example, Rows
from perception.sinks.files import PartFile, sink_errors
from perception.types import U8

NAME = "report.html"
PICTURES = 16
"""Number of the worst pictures in a report."""

PANEL_WIDTH = 480
SHOWN_CLASSES = 60
"""A confusion matrix with more classes shows those that are mistaken most."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --mark: 37 99 235; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1400px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: left; font-weight: normal; }
thead th { font-weight: 600; }
.scroll { overflow-x: auto; }
.confusion td { text-align: right; padding: .2rem .4rem; border: 1px solid var(--line); font-size: .8rem; }
.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .4rem .2rem; }
figure { margin: 0 0 1.5rem; } figcaption { margin-bottom: .3rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: .6rem; }
.panels img { width: 100%; display: block; } .panels span { font-size: .8rem; opacity: .75; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; } .axis { stroke: currentColor; opacity: .5; fill: none; }
.legend span { margin-right: 1rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .3em; }
.grid { stroke: currentColor; opacity: .12; } .curve { stroke: rgb(var(--mark)); fill: none; stroke-width: 2; }
text { font-size: 11px; fill: currentColor; opacity: .8; }
"""


class Report:
    """The file ``report.html`` in a folder.

    Args:
        folder: it is made.
        overwrite: replace a report that is there.

    Raises:
        UsageError: there is one and ``overwrite`` is False.
        SinkError: the place is not writable.
    """

    def __init__(self, folder: str | Path, overwrite: bool = False) -> None:
        self._file = PartFile(Path(folder) / NAME, overwrite)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def write(self, result: Evaluation) -> None:
        """Write the file, whole or not at all.

        Raises:
            SinkError: it cannot be written.
        """
        page = render(result).encode(errors="replace")  # names of files may hold bytes that are no UTF-8
        with self._file.open() as file, sink_errors(str(self.path)):
            file.write(page)
        self._file.publish()


def render(result: Evaluation) -> str:
    """Render the report as HTML that needs no other file and no script."""
    task = type(result).__name__.removesuffix("Evaluation").lower()
    title = f"{result.card.name}: {task}"
    facts = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in result.facts().items())
    parts = [f"<h1>{escape(title)}</h1><table>{facts}</table>"]
    parts += [f"<h2>{escape(name.capitalize())}</h2>{_table(rows)}" for name, rows in reversed(result.tables())]
    if result.curves:
        parts.append(f"<h2>Precision and recall at IoU 0.5</h2><div class='curves'>{_curves(result.curves)}</div>")
    parts.append(_confusion(result.confusion_table))
    if result.examples:
        parts.append(f"<h2>The worst pictures</h2>{_legend(result.legend)}{''.join(map(_figure, result.examples))}")
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _table(rows: Rows) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ("".join(f"<td>{escape(str(row.get(column, '')))}</td>" for column in columns) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _confusion(table: Confusion) -> str:
    rows, columns = list(range(len(table.rows))), list(range(len(table.columns)))
    note = ""
    if len(table.rows) > SHOWN_CLASSES:
        mistakes = table.counts.copy()
        np.fill_diagonal(mistakes, 0)
        each = mistakes.sum(0)[: len(rows)] + mistakes.sum(1)
        rows = np.sort(np.argsort(-each)[:SHOWN_CLASSES]).tolist()
        columns = [*rows, *columns[len(table.rows) :]]
        note = f" Only the {SHOWN_CLASSES} classes that are mistaken most are shown."
    head = "".join(f"<th>{escape(table.columns[c])}</th>" for c in columns)
    body = []
    for r in rows:
        total = max(int(table.counts[r].sum()), 1)
        cells = "".join(_share(int(table.counts[r, c]), total) for c in columns)
        body.append(f"<tr><th>{escape(table.rows[r])}</th>{cells}</tr>")
    return (
        f"<h2>Confusion matrix</h2><p>Rows are the truth, columns what it was taken for: {escape(table.counted)}, in "
        f"per cent of the row.{note}</p><div class='scroll'><table class='confusion'>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _share(count: int, total: int) -> str:
    share = count / total
    text = "" if not count else f"{share:.0%}".removesuffix("%") if share >= 0.005 else "·"
    return f"<td style='background:rgb(var(--mark) / {0.75 * share:.3f})' title='{count}'>{text}</td>"


def _curves(curves: list[Curve]) -> str:
    """Draw each curve as a small SVG, 200 units wide."""
    left, top, side = 28, 8, 160
    grid = "".join(
        f"<path class='grid' d='M{left} {top + side * i / 4:.0f}h{side}M{left + side * i / 4:.0f} {top}v{side}'/>"
        for i in range(5)
    )
    axes = (
        f"<path class='axis' d='M{left} {top}v{side}h{side}'/>"
        f"<text x='{left + side / 2}' y='{top + side + 24}' text-anchor='middle'>recall</text>"
        f"<text x='10' y='{top + side / 2}' text-anchor='middle' transform='rotate(-90 10 {top + side / 2})'>precision"
        f"</text><text x='{left}' y='{top + side + 12}'>0</text>"
        f"<text x='{left + side}' y='{top + side + 12}' text-anchor='end'>1</text>"
    )
    drawn = []
    for curve in curves:
        points = " ".join(
            f"{left + side * r:.1f},{top + side * (1 - p):.1f}"
            for r, p in zip(curve.recall.tolist(), curve.precision.tolist(), strict=True)
        )
        drawn.append(
            f"<figure><figcaption>{escape(curve.name)}</figcaption><svg viewBox='0 0 200 200'>{grid}{axes}"
            f"<polyline class='curve' points='{points}'/></svg></figure>"
        )
    return "".join(drawn)


def _legend(colors: dict[str, tuple[int, int, int]]) -> str:
    swatches = (
        f"<span><i style='background:rgb({r} {g} {b})'></i>{escape(name)}</span> " for name, (r, g, b) in colors.items()
    )
    return f"<p class='legend'>{''.join(swatches)}</p>" if colors else ""


def _figure(example: Example) -> str:
    panels = "".join(
        f"<div><img alt='{escape(title)}' src='{_data_uri(image)}'><span>{escape(title)}</span></div>"
        for title, image in example.panels
    )
    return f"<figure><figcaption>{escape(example.caption)}</figcaption><div class='panels'>{panels}</div></figure>"


def _data_uri(image: U8) -> str:
    height, width = image.shape[:2]
    if width > PANEL_WIDTH:
        size = (PANEL_WIDTH, max(round(height * PANEL_WIDTH / width), 1))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
