"""The site of the documentation, of the Markdown files of this repository: `make docs` writes it to build/docs.

The pages are what one reads in the repository. Here, links in docs/README.md become the contents of the site, and each
`<!-- generated: NAME -->` is followed by what `reference` makes of the code.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from reference.cards import card  # noqa: E402 - needs the path above
from reference.commands import commands  # noqa: E402
from reference.http_api import http_api, openapi  # noqa: E402
from reference.messages import listed  # noqa: E402
from reference.python_api import python_api  # noqa: E402
from reference.settings import settings  # noqa: E402

from perception.common.version import __version__  # noqa: E402

project = "perception"
author = "The Perception developers"
project_copyright = author
release = version = __version__
root_doc = "docs/README"
include_patterns = ["*.md", "docs/*.md", "docs/README.md"]
exclude_patterns = [".*", "build", "runs"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"perception {version}"
html_show_sphinx = False
html_copy_source = False
highlight_language = "none"
myst_heading_anchors = 4
myst_links_external_new_tab = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True
language = "en"

GENERATED = {
    "commands": commands,
    "http": http_api,
    "python": python_api,
    "settings": settings,
    "messages": listed,
    "card": card,
}
SCHEMAS = [*sorted((ROOT / "perception").glob("**/*.schema.json"))]


def read_page(app: Any, name: str, source: list[str]) -> None:
    """Fill in what is generated, and make contents of the links of the first page."""
    text = source[0]
    for marker, kind, of in re.findall(r"^(<!-- generated: (\w+) ?(.*?) -->)$", text, re.M):
        text = text.replace(marker, GENERATED[kind](*[of] * bool(of)))
    here = (ROOT / name).parent
    text = re.sub(  # folders of the repository have no page
        r"\[([^\]\n]+)\]\(([^)#:\s]+)\)", lambda link: link[1] if (here / link[2]).is_dir() else link[0], text
    )
    if name == root_doc:
        text += "".join(contents(text))
    source[0] = text


def contents(text: str) -> list[str]:
    """A part of the site's contents for each section of the first page: the pages that it links first in its lines."""
    parts = []
    for title, section in re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", text, re.M):
        pages = re.findall(r"^- \[[^\]]+\]\(([^)#:]+\.md)\)", section, re.M)
        if pages:
            parts.append(f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + "\n```\n")
    return parts


def write_data(app: Any, error: Exception | None) -> None:
    """Put what programs read beside the pages: JSON Schemas, the OpenAPI description; and lead / to the first page."""
    if error is None:
        out = Path(app.outdir)
        (out / "schemas").mkdir(exist_ok=True)
        for path in SCHEMAS:
            (out / "schemas" / path.name).write_bytes(path.read_bytes())
        (out / "openapi.json").write_text(json.dumps(openapi(), indent=1), encoding="utf-8")
        page = f"{root_doc}.html"
        (out / "index.html").write_text(
            f'<!doctype html><meta charset="utf-8"><title>perception</title>'
            f'<meta http-equiv="refresh" content="0; url={page}"><a href="{page}">perception</a>\n'
        )


def setup(app: Any) -> None:
    """Connect to Sphinx."""
    app.connect("source-read", read_page)
    app.connect("build-finished", write_data)
