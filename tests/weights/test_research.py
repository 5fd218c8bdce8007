"""Models of another distribution: those for research, with and without it; and what each distribution may hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from perception.card import read_card
from perception.common.distribution import DISTRIBUTION
from perception.weights import RESEARCH, RESEARCH_MODELS

ROOT = Path(__file__).parents[2]
SHIPPED, FOLDER = ROOT / "perception" / "weights", ROOT / "research" / "perception_weights_research"


@pytest.fixture(scope="module")
def without_research(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's packages but for the one of the models for research."""
    folder = tmp_path_factory.mktemp("packages")
    for packages in (Path(entry) for entry in sys.path if entry.endswith("site-packages")):
        for path in packages.iterdir():
            if "perception" not in path.name and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def with_research(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `research`, built and unpacked: what installing it adds to an environment."""
    folder = tmp_path_factory.mktemp("research")
    source = folder / "source"
    shutil.copytree(FOLDER.parent, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    script = f"import setuptools.build_meta as b; b.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def perception(*words: str, packages: list[Path]) -> subprocess.CompletedProcess[str]:
    """Run the command with these folders of packages only."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *packages]))}
    command = [sys.executable, "-S", "-m", "perception", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_cards_say_in_which_distribution_a_model_belongs() -> None:
    uses = {path: read_card(path).commercial_use for folder in (SHIPPED, FOLDER) for path in folder.glob("*.onnx")}
    assert {path.stem for path, use in uses.items() if use is False} == set(RESEARCH_MODELS)
    assert {path.parent for path, use in uses.items() if use is False} == {FOLDER}
    assert {path.stem for path in FOLDER.glob("*.onnx")} == set(RESEARCH_MODELS)


def test_without_it_one_line_says_what_to_install(without_research: Path, tmp_path: Path) -> None:
    rows = json.loads(perception("models", "--json", packages=[without_research]).stdout)
    shipped = {row["name"]: row for row in rows if row["from"] == DISTRIBUTION}
    assert set(shipped) == {path.stem for path in SHIPPED.glob("*.onnx")}
    assert not {row["name"] for row in rows} & set(RESEARCH_MODELS)
    assert not [name for name, row in shipped.items() if row["commercial_use"] is False]
    output = tmp_path / "out.mp4"
    told = perception(
        "annotate", "synthetic:?frames=2", "-m", "street-int8", "-o", str(output), packages=[without_research]
    )
    assert told.returncode == 2 and not output.exists()
    (line,) = told.stderr.splitlines()
    assert line.startswith("error: the model 'street-int8' is for research only")
    assert "pip install ./research" in line and line.endswith(f"pip install {RESEARCH}")
    near = perception("models", "stret", packages=[without_research]).stderr
    assert "did you mean" in near and " street" in near


def test_with_it_they_are_found_and_whole(without_research: Path, with_research: Path) -> None:
    packages = [without_research, with_research]
    done = perception("models", "--json", packages=packages)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name for name, row in rows.items() if row["from"] == RESEARCH} == set(RESEARCH_MODELS)
    for name in RESEARCH_MODELS:
        installed = Path(rows[name]["path"])
        assert installed.parent == with_research / FOLDER.name
        assert installed.read_bytes() == (FOLDER / f"{name}.onnx").read_bytes()
    card = json.loads(perception("models", "camvid", "--json", packages=packages).stdout)
    assert card["name"] == "camvid" and card["commercial_use"] is False
    # The list of checksums is installed, too, and looked at.
    damaged = with_research / FOLDER.name / "camvid-int8.onnx"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    told = perception("models", "camvid-int8", packages=packages)
    assert told.returncode == 2 and "camvid-int8.onnx: the file is damaged: its SHA-256" in told.stderr


def test_a_package_that_cannot_be_imported_costs_its_own_models_only(without_research: Path, tmp_path: Path) -> None:
    meta = tmp_path / "broken_weights-1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-weights\nVersion: 1\n")
    (meta / "entry_points.txt").write_text("[perception.weights]\nbroken = broken_weights\n")
    for content in (None, "raise RuntimeError('not today')\n"):
        if content is not None:
            (tmp_path / "broken_weights.py").write_text(content)
        done = perception("models", "--json", packages=[without_research, tmp_path])
        assert done.returncode == 0 and "street-open" in done.stdout
        assert "broken-weights: its models cannot be found" in done.stderr


def test_the_readme_of_the_distribution_lists_its_models() -> None:
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(" `"): row for row in text.splitlines() if row.startswith("| `")}
    assert set(rows) == set(RESEARCH_MODELS)
    for name, row in rows.items():
        assert row.strip("| ").endswith(f"| {read_card(FOLDER / f'{name}.onnx').version}")
