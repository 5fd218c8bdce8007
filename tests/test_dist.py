"""What is released: sdists and wheels with the same bytes each time, whole, and enough for an empty environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from perception.common.version import __version__
from perception.weights import RESEARCH_MODELS

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        shutil.which("git") is None or not (ROOT / ".git").exists(), reason="what is tracked is not known here"
    ),
]


def build(output: Path, umask: int, **environment: str) -> dict[str, Path]:
    command = [sys.executable, str(ROOT / "deploy" / "dist.py"), str(output)]
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(map(Path, done.stdout.split())) == sorted(output.iterdir())
    return {path.name: path for path in output.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("dist"), 0o022)


def wheel_of(made: dict[str, Path], start: str) -> Path:
    (name,) = (name for name in made if name.startswith(start) and name.endswith(".whl"))
    return made[name]


def test_another_build_has_the_same_bytes(made: dict[str, Path], tmp_path: Path) -> None:
    """With another umask, another seed of hashes and in another time zone; another time is another file."""
    again = build(tmp_path / "again", 0o077, PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    assert set(again) == set(made) == {
        f"perception_streams-{__version__}.tar.gz", f"perception_streams-{__version__}-py3-none-any.whl",
        "perception_weights_research-1.0.tar.gz", "perception_weights_research-1.0-py3-none-any.whl",
    }  # fmt: skip
    for name, path in made.items():
        assert again[name].read_bytes() == path.read_bytes(), name


def test_the_time_is_what_the_environment_says(made: dict[str, Path], tmp_path: Path) -> None:
    other = build(tmp_path / "other", 0o022, SOURCE_DATE_EPOCH="1577836800")
    for name, path in other.items():
        assert path.read_bytes() != made[name].read_bytes()
        if name.endswith(".whl"):
            assert {info.date_time for info in zipfile.ZipFile(path).infolist()} == {(2020, 1, 1, 0, 0, 0)}
        else:
            with tarfile.open(path) as archive:
                assert {member.mtime for member in archive} == {1577836800}


def test_an_sdist_gives_the_wheel(made: dict[str, Path], tmp_path: Path) -> None:
    """Everything that is needed is in it, and nothing of the machine that made it."""
    for name, path in made.items():
        if not name.endswith(".tar.gz"):
            continue
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
            assert {oct(m.mode) for m in members if not m.isdir()} <= {"0o644", "0o755"}
            archive.extractall(tmp_path)
        source = tmp_path / name.removesuffix(".tar.gz")
        assert not (source / "tests").exists()
        script = f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"
        subprocess.run([sys.executable, "-c", script], cwd=source, check=True, capture_output=True)
        (wheel,) = tmp_path.glob(f"{source.name}-*.whl")
        with zipfile.ZipFile(wheel) as theirs, zipfile.ZipFile(made[wheel.name]) as ours:
            assert {i.filename: i.CRC for i in theirs.infolist()} == {i.filename: i.CRC for i in ours.infolist()}


def test_weights_are_in_the_distribution_that_they_belong_to(made: dict[str, Path]) -> None:
    def models(start: str) -> set[str]:
        names = zipfile.ZipFile(wheel_of(made, start)).namelist()
        return {Path(name).stem for name in names if name.endswith(".onnx")}

    assert models("perception_weights_research") == set(RESEARCH_MODELS)
    free = models("perception_streams")
    assert "street-open" in free and not free & set(RESEARCH_MODELS)


def test_an_empty_environment_is_enough_for_the_demo(made: dict[str, Path], tmp_path: Path) -> None:
    near = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries=1", "-d", str(tmp_path), "typer"]
    if subprocess.run(near, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("the package index cannot be reached")
    venv.create(tmp_path / "empty", with_pip=True)
    binaries = tmp_path / "empty" / ("Scripts" if os.name == "nt" else "bin")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(binaries / command[0]), *command[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=1200, check=False,
        )  # fmt: skip

    installed = run("python", "-m", "pip", "install", "-q", str(wheel_of(made, "perception_streams")))
    assert installed.returncode == 0, installed.stderr[-2000:]
    shown = run("perception", "demo", "--clip", "synthetic", "-o", "free")
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert {path.name for path in (tmp_path / "free").iterdir()} == {"demo.mp4", "demo.jsonl", "demo.png"}
    missing = run("perception", "demo", "--clip", "synthetic", "-o", "research", "-m", "street")
    assert missing.returncode == 2 and "is for research only and not installed" in missing.stderr
    added = run("python", "-m", "pip", "install", "-q", str(wheel_of(made, "perception_weights_research")))
    assert added.returncode == 0, added.stderr[-2000:]
    shown = run("perception", "demo", "--clip", "synthetic", "-o", "research", "-m", "street")
    assert shown.returncode == 0, shown.stderr[-2000:]
