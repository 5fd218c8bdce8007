"""What images install, by its hash; and that no library reports what it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.models import write_model

if sys.version_info >= (3, 11):
    import tomllib
else:  # which pytest brings
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = {
    "live": ("live", "mqtt"),
    "live-tensorrt": ("live", "mqtt", "tensorrt"),
    "live-tensorrt-rtx": ("live", "mqtt", "tensorrt-rtx"),
}
DIGEST = re.compile(r"--hash=sha256:[0-9a-f]{64}")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """The entries of a list, each with its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(Requirement(DIGEST.sub("", entry).strip()), DIGEST.findall(entry)) for entry in entries]


def wanted(name: str) -> list[Requirement]:
    """What it must satisfy."""
    if name == "build":
        return [Requirement(text) for text in PROJECT["build-system"]["requires"]]
    if name in EXTRAS:
        optional = PROJECT["project"]["optional-dependencies"]
        texts = [*PROJECT["project"]["dependencies"], *(t for extra in EXTRAS[name] for t in optional[extra])]
        return [Requirement(text) for text in texts]
    lines = (ROOT / "deploy" / f"{name}.txt").read_text().splitlines()
    return [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]


LISTS = sorted(path.stem for path in (ROOT / "requirements").glob("*.txt"))


def test_there_is_a_list_for_each_image() -> None:
    assert sorted(LISTS) == sorted(["build", "jetpack6", "jetpack7", *EXTRAS])
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert dockerfile.count("--require-hashes") == 3
    installs = re.findall(r"pip install [^&]*?(?=\n(?! {6})| &&|\n \\&)", dockerfile)
    assert len(installs) == 5
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation" in line for line in installs), installs


@pytest.mark.parametrize("name", LISTS)
def test_the_lists_are_in_step_with_what_is_declared(name: str) -> None:
    """`make lock` resolves them again."""
    versions: dict[str, list[Requirement]] = {}
    for entry, hashes in locked(name):
        assert hashes, entry
        assert [specifier.operator for specifier in entry.specifier] == ["=="], entry
        versions.setdefault(canonicalize_name(entry.name), []).append(entry)
    pythons = {"jetpack6": ("3.10",), "jetpack7": ("3.12",)}.get(name, PYTHONS)
    for requirement in wanted(name):
        for python in pythons:
            environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.5"}
            there = [
                entry
                for entry in versions.get(canonicalize_name(requirement.name), [])
                if entry.marker is None or entry.marker.evaluate(environment)
            ]
            assert len(there) == 1, f"{requirement} on Python {python}: {there}"
            (specifier,) = there[0].specifier
            assert requirement.specifier.contains(specifier.version), f"{requirement}: {specifier}; `make lock`"


@pytest.mark.parametrize("name", LISTS)
def test_no_list_says_where_it_was_resolved(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|--index|--extra-index|--find-links|--trusted)", text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["live"])
def test_pip_takes_a_list_by_its_hashes(name: str, tmp_path: Path) -> None:
    """And does not take it when one of them is another."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-input", "--require-hashes", "--no-deps", "--target"]
    near = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries=1", "-d", str(tmp_path), "typer"]
    if subprocess.run(near, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("the package index cannot be reached")
    source = ROOT / "requirements" / f"{name}.txt"
    done = subprocess.run([*pip, str(tmp_path / "all"), "-r", str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    entry, _ = next(found for found in locked(name) if found[0].name == "typer")
    other = tmp_path / "other.txt"
    other.write_text(f"{entry} --hash=sha256:{'0' * 64}\n")
    done = subprocess.run([*pip, str(tmp_path / "one"), "-r", str(other)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "HASHES" in done.stderr


def test_openvino_reports_nothing(tmp_path: Path) -> None:
    """Its reporter keeps a number of this user in a folder of his."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment["HOME"] = str(home)
    script = (
        "import sys, perception, perception.engines.openvino as engine\n"
        "assert engine.native_precisions()\n"
        "print(sorted(n for n, m in sys.modules.items() if 'openvino_telemetry' in n and m is not None))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=110)
    assert done.stdout.strip() == "[]", done.stderr
    assert not [*home.iterdir()]


@pytest.mark.parametrize("asked", [None, "0"])
def test_onnx_runtime_reports_nothing(asked: str | None, tmp_path: Path) -> None:
    """Its reporter leaves a file among the temporary ones. Who wants it may have it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    model = write_model(tmp_path / "m.onnx")
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and name != "CI"}
    environment |= {"TMPDIR": str(temporary)} | ({} if asked is None else {"ORT_DISABLE_TELEMETRY": asked})
    script = (
        "import os, sys, perception\n"
        "perception.load_model(sys.argv[1], engine='onnxruntime').close()\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)], env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.stdout.strip() == (asked or "1"), done.stderr
    if asked is None:
        assert not [*temporary.iterdir()]
