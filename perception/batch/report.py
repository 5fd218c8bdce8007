"""The report of a batch: one page that needs nothing else, with a small picture of each file, counts and failures."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from perception.annotate.result import Result
from perception.annotate.summary import RunSummary
from perception.batch.made_by import flat
from perception.batch.manifest import Entry, Manifest
from perception.common.files import write_atomic
from perception.common.objects import ObjectPath
from perception.common.text import counted
from perception.drawing.contact_sheet import contact_sheet
from perception.errors import PerceptionError
from perception.sinks.files import sink_errors
from perception.sinks.picture import encode_picture
from perception.sources import open_source
from perception.sources.uri import redact

NAME = "report.html"
PICTURES = 200
"""So many files have a small picture; the page would be large with more."""
CLASSES = 4
"""So many classes are named for each file."""
_WIDTH, _QUALITY = 160, 70

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
body { color: #222; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem } .bad { color: #a11 }
table { border-collapse: collapse; width: 100% } th { text-align: left } .n { text-align: right; white-space: nowrap }
td, th { padding: .3rem .7rem .3rem 0; vertical-align: top; border-bottom: 1px solid #ddd; overflow-wrap: anywhere }
.p { width: 120px } img { display: block; width: 120px }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem }
dt { color: #666 } dd { margin: 0; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } a { color: #8bf } .bad { color: #f88 }
td, th { border-color: #444 } dt { color: #aaa } }
"""


def write_report(manifest: Manifest, results: Sequence[Result], summary: RunSummary, made: Mapping[str, Any]) -> None:
    """Write the report beside the manifest. It says nothing of time: the same outputs have the same report.

    Args:
        manifest: of all that is done.
        results: of the sources of the batch, in order; those that were not come to, too.
        summary: of the run.
        made: what the outputs depend on, see `perception.batch.made_by`.

    Raises:
        SinkError: it cannot be written.
    """
    path = manifest.folder / NAME
    page = _page(manifest, results, summary, made).encode("utf-8", "backslashreplace")
    with sink_errors(str(path)):
        path.write_bytes(page) if isinstance(path, ObjectPath) else write_atomic(path, page)


def _page(manifest: Manifest, results: Sequence[Result], summary: RunSummary, made: Mapping[str, Any]) -> str:
    done = {r.number: _done(manifest, r) for r in results}
    entries = [entry for entry in done.values() if entry is not None]
    failed = [result for result in results if result.error is not None]
    unreadable = [(result, path) for result in results for path in result.unreadable]
    missing = len(results) - len(entries) - len(failed)
    boxes: Counter[str] = Counter()
    for entry in entries:
        boxes.update(entry.boxes)
    head = [f"{len(entries)} of {counted(len(results), 'file')} annotated"]
    head += [f'<span class="bad">{len(failed)} failed</span>'] if failed else []
    head += [f'<span class="bad">{counted(len(unreadable), "picture")} cannot be read</span>'] if unreadable else []
    why = escape(summary.stopped or "interrupted")
    head += [f'<span class="bad">{missing} not done: {why}</span>'] if missing else []
    model = made["model"]
    facts = {
        "model": f"{model['name']} {model['version']}, {model['engine']} {model['precision']}",
        "SHA-256": model["sha256"],
        "perception": made["perception"],
        "frames": f"{sum(entry.frames for entry in entries)}",
        "boxes": ", ".join(f"{name} {count}" for name, count in boxes.most_common()) or "none",
        "settings": _settings(made["settings"]),
    }
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Annotated files</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        f"<style>{_STYLE}</style></head><body><h1>{', '.join(head)}</h1><dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()),
        "</dl>",
    ]
    if failed or unreadable:
        rows = [(result.source, str(result.error)) for result in failed]
        rows += [(path, "cannot be read as an image; left out") for _, path in unreadable]
        parts.append("<h2>Failures</h2><table><tr><th>file</th><th>reason</th></tr>")
        parts += [
            f'<tr><td>{escape(redact(source))}</td><td class="bad">{escape(_reason(source, why))}</td></tr>'
            for source, why in rows
        ]
        parts.append("</table>")
    parts.append('<h2>Files</h2><table><tr><th></th><th>file</th><th class="n">frames</th><th>boxes</th></tr>')
    pictures = 0
    for result in results:
        made_of = done[result.number]
        if made_of is not None:
            shown = _thumbnail(manifest, made_of) if pictures < PICTURES else ""
            pictures += bool(shown)
            parts.append(_row(result, made_of, shown))
    parts.append("</table>")
    if pictures >= PICTURES:
        parts.append(f"<p>The first {PICTURES} files have a picture here.</p>")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _done(manifest: Manifest, result: Result) -> Entry | None:
    entry = manifest.entries.get(manifest.key(result.source))
    wanted = result.skipped or result.report is not None
    return entry if wanted and entry is not None and entry.state == "done" else None


def _row(result: Result, entry: Entry, shown: str) -> str:
    links = ", ".join(f'<a href="{escape(quote(place))}">{escape(kind)}</a>' for kind, place in entry.outputs.items())
    counts = Counter(entry.boxes).most_common()
    boxes = ", ".join(f"{name} {count}" for name, count in counts[:CLASSES])
    boxes += f" and {len(counts) - CLASSES} more" if len(counts) > CLASSES else ""
    return (
        f"<tr><td class='p'>{shown}</td><td>{escape(redact(result.source))}<br>{links}</td>"
        f'<td class="n">{entry.frames}</td><td>{escape(boxes)}</td></tr>'
    )


def _reason(source: str, error: str) -> str:
    """Return an error without the file that it names first, which stands beside it."""
    return error.removeprefix(f"{redact(source)}: ")


def _settings(settings: Mapping[str, Any]) -> str:
    """Return the settings that say something, in one line."""
    said = {name: value for name, value in flat(settings).items() if value not in (None, [], {}, "", False)}
    return ", ".join(
        f"{name} {'+'.join(map(str, value)) if isinstance(value, list) else value}" for name, value in said.items()
    )


def _thumbnail(manifest: Manifest, entry: Entry) -> str:
    """Return the first annotated picture of a file, small; nothing where there is none that can be read."""
    paths = manifest.paths(entry)
    kind = next((kind for kind in ("video", "picture", "images", "pictures") if kind in paths), None)
    if kind is None:
        return ""
    path = paths[kind]
    if isinstance(path, ObjectPath):  # all of it would be copied here
        return ""
    try:
        if path.is_dir():
            path = next(file for file in sorted(path.iterdir()) if file.suffix == ".jpg")
        with open_source(str(path), max_frames=1, decoder="cpu") as source:
            picture = next(iter(source)).image
    except (PerceptionError, OSError, StopIteration):
        return ""
    data = encode_picture(contact_sheet([picture], 1, _WIDTH), ".jpg", _QUALITY, NAME)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
