"""Every command line and every module that a text of the project names is there: parsed and looked up, not run."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.command_lines import check, comment_lines, shell_lines, spans, typed

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "perception"
FOLDERS = (ROOT, ROOT / "docs", ROOT / ".github", ROOT / "research")
PAGES = [page for folder in FOLDERS for page in sorted(folder.glob("*.md"))]
WITHOUT_COMMANDS = {"architecture.md", "reliability.md", "CODE_OF_CONDUCT.md", "pull_request_template.md"}
COMMENTED = [
    ROOT / "Dockerfile", ROOT / "Makefile", *sorted(ROOT.glob("configs/**/*.yaml")),
    *sorted(path for path in ROOT.glob("deploy/**/*") if path.is_file()),
    *sorted(PACKAGE.glob("foreign/cards/*.yaml")),
]  # fmt: skip
SOURCES = [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "demos").glob("*.py"))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def docstrings(path: Path) -> tuple[str, ...]:
    expressions = [node.value for node in nodes(path) if isinstance(node, ast.Expr)]
    return tuple(e.value for e in expressions if isinstance(e, ast.Constant) and isinstance(e.value, str))


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # --config reads its file while the line is parsed


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_command_lines_of_a_page_parse(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = shell_lines(text)
    for line in lines:
        for name in re.findall(r"(?<![\w/.])configs/[\w*/.-]+\.yaml", line):
            assert list(ROOT.glob(name)), name
    found = sum(check(line) for line in lines) + sum(check(span, whole=False) for span in spans(text))
    assert found or page.name in WITHOUT_COMMANDS


@pytest.mark.parametrize("path", COMMENTED, ids=relative)
def test_command_lines_of_settings_and_images_parse(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = [*comment_lines(text), *re.findall(r"^(?:\t@?|ExecStart=)(\$\(BIN\)/\S+ .*|/\S+ .*)", text, re.M)]
    lines = [re.sub(r"\$\([^()]*(\([^()]*\)[^()]*)*\)", "X", line.replace("$(BIN)/", "")) for line in lines]
    found = sum(check(line) for line in typed(lines))
    found += sum(check(span, whole=False) for span in spans("\n".join(comment_lines(text))))
    assert found or path.name not in ("Dockerfile", "Makefile", "perception-live.service")


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_command_lines_of_docstrings_parse(path: Path) -> None:
    for text in docstrings(path):
        for line in typed(text.splitlines()):
            if line.startswith(("perception ", "python ")) and not re.search(r"[`]", line):
                check(line.partition("    (")[0], whole=False)
        for span in spans(text):
            check(span, whole=False)


def test_targets_of_make_that_texts_name_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    lines = "\n".join(line for text in texts for line in shell_lines(text))
    named = set(re.findall(r"^make ([a-z-]+)", lines, re.M)) | set(re.findall(r"`make ([a-z-]+)`", "\n".join(texts)))
    assert named and named <= targets


def dotted_names(text: str) -> set[str]:
    """Names such as ``perception.engines.trt.flavour``, with the last part that may be an attribute."""
    return {name.rstrip(".") for name in re.findall(r"(?<![\w./:-])perception(?:\.[A-Za-z_]\w*)+", text)}


def is_there(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something that the module at its end defines."""
    place = PACKAGE
    parts = name.split(".")[1:]
    for i, part in enumerate(parts):
        if (place / part).is_dir():
            place = place / part
            continue
        module = place / f"{part}.py"
        if module.is_file():
            return defines(module, parts[i + 1 :])
        return defines(place / "__init__.py", parts[i:])
    return True


def defines(module: Path, parts: list[str]) -> bool:
    """Whether a module defines, imports or lists the first of some names."""
    return not parts or parts[0] in names_in(module)


@cache
def names_in(module: Path) -> set[object]:
    names: set[object] = set()
    for node in nodes(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.alias)):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Constant):
            names.add(node.value)
    return names


# What a name in a text looks like and is none: loggers, files, hosts.
NO_MODULES = {"perception.command", "perception.example", "perception.training"}


@pytest.mark.parametrize("path", [*PAGES, *COMMENTED, *SOURCES], ids=relative)
def test_modules_that_are_named_are_there(path: Path) -> None:
    texts = docstrings(path) if path.suffix == ".py" else (path.read_text(encoding="utf-8"),)
    for text in texts:
        missing = {name for name in dotted_names(text) - NO_MODULES if not is_there(name)}
        assert not missing
        for name in re.findall(r"(?<![\w/.])((?:perception|tests|demos)/[\w/]+\.(?:py|yaml|js))", text):
            assert (ROOT / name).is_file(), name
        if path.suffix == ".md":
            for name in re.findall(r"`([\w/]+\.py)`", text):
                assert (ROOT / name).is_file() or (PACKAGE / name).is_file(), name
            for name in re.findall(r"`(\w+(?:/\w+)*)/`", text):
                assert (ROOT / name).is_dir() or (PACKAGE / name).is_dir(), name


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)]*)?\)", text):
            other = page.parent / target if target else page
            assert other.exists(), f"{page.name}: {target}"
            if anchor and other.suffix == ".md":
                titles = re.findall(r"^#+ (.*)", other.read_text(encoding="utf-8"), re.M)
                anchors = {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in anchors, f"{page.name}: {target}{anchor}"


def test_one_default_model_everywhere() -> None:
    """README, demos and examples in docstrings load the model that is taken where none is named."""
    from perception.weights.library import DEFAULT_MODEL

    used = {}
    for path in [ROOT / "README.md", *SOURCES]:
        text = path.read_text(encoding="utf-8")
        if path.is_relative_to(PACKAGE) and path.suffix == ".py":
            text = "\n".join(docstrings(path))
        for name in re.findall(r"load_model\(\s*\"([a-z-]+)\"", text):
            used[relative(path)] = name
    assert used and set(used.values()) == {DEFAULT_MODEL}
    assert f"`{DEFAULT_MODEL}` is the default" in (ROOT / "README.md").read_text()


def test_the_check_finds_what_is_wrong() -> None:
    for line in (
        "perception annotat a.mp4",
        "perception annotate a.mp4 --oputput b.mp4",
        "perception annotate",
        "perception --log-format xml live",
        "perception --log-format json liv",
        "x | perception frob",
        "perception build street --batch nine",
        "sudo /opt/perception/bin/perception bench --repeats many",
        "docker run perception:cuda annotate in.mp4 --engin tensorrt",
        "python demos/no.py",
        "python -m perception.nothing",
    ):
        with pytest.raises(AssertionError):
            check(line)
    assert check("ffmpeg -i a -f matroska - | perception annotate - --jsonl -   # pipes") == 1
    assert check("perception build street && perception verify street") == 2
    assert check("perception train", whole=False) == 1
    assert not is_there("perception.engines.no") and is_there("perception.engines.open_engine")


def test_tracked_files_are_what_is_checked() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a checkout")
    assert {ROOT / name for name in tracked.stdout.split()} <= set(PAGES)
