"""What is to be installed is named by what this project requires, and never by a name that is somebody else's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from perception.common.console import in_flags
from perception.common.distribution import DISTRIBUTION, install_hint, require, requirements
from perception.engines.torch import available
from perception.errors import UsageError
from perception.server.inference.explain_process import missing
from perception.weights import RESEARCH

if sys.version_info >= (3, 11):
    import tomllib
else:  # which pytest brings
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def expanded(extra: str) -> Iterator[Requirement]:
    """What an extra of pyproject.toml asks for, by pip's own parser."""
    for requirement in map(Requirement, EXTRAS[extra]):
        if canonicalize_name(requirement.name) == DISTRIBUTION:
            for inner in requirement.extras:
                yield from expanded(inner)
        else:
            yield requirement


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the metadata that setuptools makes of pyproject.toml."""
    folder = tmp_path_factory.mktemp("metadata")
    copy = folder / "source"
    (copy / "perception" / "common").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "perception/__init__.py", "perception/common/version.py"):
        (copy / name).write_text((ROOT / name).read_text())
    script = f"import setuptools.build_meta as b; b.prepare_metadata_for_build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=copy, check=True, capture_output=True)
    return folder


@pytest.fixture
def installed(metadata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That metadata in front of any other."""
    monkeypatch.syspath_prepend(metadata)


def same(text: str) -> tuple[object, ...]:
    one = Requirement(text)
    return one.name, one.specifier, frozenset(one.extras), str(one.marker or "")


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_is_its_requirements(installed: None, extra: str) -> None:
    assert {same(text) for text in requirements(extra)} == {same(str(one)) for one in expanded(extra)}


def test_the_hint_is_a_command_for_what_is_missing(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = shlex.split(install_hint("live"))
    assert command[:2] == ["pip", "install"]
    assert {Requirement(text).name for text in command[2:]} <= {one.name for one in expanded("live")}
    everything = {one.name for one in expanded("live")}
    for name in everything:
        folder = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    # everything is there, so whoever asks has a broken one: name them all
    assert {Requirement(text).name for text in shlex.split(install_hint("live"))[2:]} == everything


def test_the_hint_names_no_more_than_is_needed(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants an explanation need not install what training needs."""
    monkeypatch.setattr("perception.common.distribution._is_there", lambda requirement: False)
    of_train = {one.name: one for one in expanded("train")}
    for names in (["torch"], ["torch", "captum"]):
        found = {one.name: one for one in map(Requirement, shlex.split(install_hint("train", *names))[2:])}
        assert found == {name: of_train[name] for name in names}
    monkeypatch.setattr("perception.server.inference.explain_process.find_spec", lambda name: None)
    monkeypatch.setattr("perception.engines.torch.find_spec", lambda name: None)
    said = missing()
    assert said is not None
    assert "torch<" in said and "captum<" in said and "tensorboard" not in said
    _, said = available()
    assert "torch<" in said and "timm" not in said
    with pytest.raises(UsageError, match="torch<") as told:
        require("a_missing_one", "train", "explaining a model", "torch", "captum")
    assert "timm" not in str(told.value)


def test_no_hint_for_what_is_no_extra(installed: None) -> None:
    with pytest.raises(ValueError, match="no extra 'lvie'"):
        install_hint("lvie")


def test_from_a_source_tree_the_hint_is_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.common.distribution.DISTRIBUTION", "no-such-distribution-at-all")
    assert install_hint("live") == "pip install '.[live]'"


def test_what_is_required_is_said(installed: None) -> None:
    require("json", "live", "the live server")
    with pytest.raises(UsageError, match=r"the live server needs a_missing_one; install it with: pip install '"):
        require("a_missing_one", "live", "the live server")


def test_the_name_is_one() -> None:
    assert PROJECT["name"] == DISTRIBUTION != "perception"
    research = tomllib.loads((ROOT / "research" / "pyproject.toml").read_text())["project"]["name"]
    assert research == RESEARCH
    for extra, texts in EXTRAS.items():
        ours = {DISTRIBUTION, research} if extra == "research" else {DISTRIBUTION}
        names = {Requirement(text).name for text in texts}
        assert not any(re.match("perception", name) and name not in ours for name in names)


def test_no_text_tells_anybody_to_install_somebody_elses_package() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    wrong = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".js", ".html") or not path.suffix:
            text = path.read_text(encoding="utf-8", errors="replace")
            found = re.findall(r"""install[^\n]{0,60}?[\s'"`]perception(?:\[[\w,-]+\])?(?=['"`\s=<>~]|$)""", text, re.M)
            wrong += [f"{name}: {line}" for line in found if "pip" in line]
            wrong += [f"{name}: {line}" for line in re.findall(r"""['"`]perception\[[a-z][\w,-]*\]""", text)]
    assert not [line for line in wrong if not line.startswith("tests/common/test_distribution.py")]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("give another name, or `overwrite=True` to replace it", "give another name, or --overwrite to replace it"),
        ("`decoder=cpu`", "--decoder cpu"),
        ("`accept_licence=True`", "--accept-licence"),
        ("see `perception models`; synthetic:?size=64x48", "see `perception models`; synthetic:?size=64x48"),
    ],
)
def test_the_command_line_speaks_in_flags(message: str, said: str) -> None:
    assert in_flags(message) == said
