"""The site of the documentation: built without a warning, nothing left out, nothing loaded from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import perception
from tests.test_command_line import COMMANDS

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.timeout(600),  # ten seconds of one core, which it may have to share with many
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo", "gradio")),
        reason="the extras `docs` and `live` are not installed",
    ),
]


def build(sources: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs."""
    words = ["-W", "--keep-going", "-q", "-c", str(ROOT / "docs" / "site"), str(sources), str(out)]
    return subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, timeout=580)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_every_page_is_there_and_in_the_contents(site: Path) -> None:
    first = (site / "docs" / "README.html").read_text(encoding="utf-8")
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        built = site / page.relative_to(ROOT).with_suffix(".html")
        assert built.is_file()
        assert page.stem in first
    assert "url=docs/README.html" in (site / "index.html").read_text()


def test_the_reference_has_every_command_option_name_route_and_key(site: Path) -> None:
    commands = text_of(site / "docs" / "commands.html")
    for path, command in COMMANDS.items():
        assert path in commands, path
        for parameter in command.params:
            named = [] if parameter.param_type_name == "argument" or parameter.hidden else parameter.opts
            assert all(name in commands for name in named), (path, named)
    python = (site / "docs" / "python.html").read_text(encoding="utf-8")
    assert all(f'id="perception.{name}"' in python for name in set(perception.__all__) - {"__version__"})
    described = json.loads((site / "openapi.json").read_text())
    http = text_of(site / "docs" / "http.html")
    assert all(f"{method.upper()} {path}" in http for path, methods in described["paths"].items() for method in methods)
    assert {"/v1/predict", "/v1/streams", "/v1/jobs"} <= set(described["paths"])
    from perception.rules.settings import Line
    from perception.server.settings import ServerSettings

    settings = text_of(site / "docs" / "settings.html")
    assert all(key in settings for model in (ServerSettings, Line) for key in model.model_fields)


def test_what_programs_read_is_beside_the_pages(site: Path) -> None:
    names = {path.name for path in (site / "schemas").iterdir()}
    assert names == {f"{name}.schema.json" for name in ("event", "jsonl", "coco", "panoptic")}


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe|source)[^>]*(?:src|href)=\"([^\"]+)\"", page.read_text())
        assert loaded or page.name == "index.html"
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text()), sheet


@pytest.mark.slow
def test_a_link_that_leads_nowhere_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("# A\n\n## B\n\n- [b](b.md)\n\n[c](b.md#nothing) [d](e.md)\n")
    (tmp_path / "docs" / "b.md").write_text("# B\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert "nothing" in done.stderr and "e.md" in done.stderr
