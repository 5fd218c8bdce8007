"""What installs and starts perception elsewhere: images, requirements of a Jetson, a service, its settings."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer.main
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from perception.card import read_card, shipped_cards
from perception.commands.main import app
from perception.weights.library import model_paths

if sys.version_info >= (3, 11):
    import tomllib
else:  # which pytest brings
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
JETSONS = {"6": ("3.10", 35, 12), "7": ("3.12", 39, 13)}
"""JetPack: its Python, the minor version of its glibc, its CUDA."""

HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def listed(jetpack: str) -> dict[str, Requirement]:
    lines = (ROOT / "deploy" / f"jetpack{jetpack}.txt").read_text().splitlines()
    found = [Requirement(line.partition("#")[0].strip()) for line in lines if line.partition("#")[0].strip()]
    return {requirement.name: requirement for requirement in found}


@pytest.mark.skipif(HADOLINT is None, reason="hadolint has no wheel for this system")
def test_the_dockerfile_is_linted() -> None:
    done = subprocess.run(
        [str(HADOLINT), str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_the_images_are_there_and_copy_what_the_context_holds() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE)
    assert {"cpu", "cuda", "jetson"} <= set(stages) and stages[-1] == "cpu"  # what is built by default
    context = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    for line in re.findall(r"^COPY (?!--from)(.+)", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert source.split("/")[0] in context
            for jetpack in JETSONS:
                assert (ROOT / source.replace("${JETPACK}", jetpack)).exists()
    jetson = text[text.index("AS jetson") : text.index("AS cpu")]
    assert "torch" not in jetson and "opencv-python" not in jetson and "--system-site-packages" in jetson


def test_the_image_for_gpus_takes_an_index_and_either_tensorrt() -> None:
    """The public index has a source package of TensorRT's libraries, which fetches them from elsewhere."""
    text = (ROOT / "Dockerfile").read_text()
    build = text[text.index("AS build-cuda") : text.index("AS runtime")]
    before, install = build.split("RUN ", 1)
    assert re.findall(r"^ARG (\w+)=(\S*)$", before, re.MULTILINE) == [
        ("TENSORRT", "tensorrt"), ("PIP_EXTRA_INDEX_URL", "")
    ]  # fmt: skip
    assert "requirements/live-${TENSORRT}.txt" in install
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ("tensorrt", "tensorrt-rtx"):
        assert (ROOT / f"requirements/live-{name}.txt").is_file()
    for name, cuda in {"tensorrt": "cu13", "tensorrt-rtx": "cu13", "tensorrt-cu12": "cu12"}.items():
        assert any(line.startswith(f"numba-cuda[{cuda}]") for line in extras[name])
    assert "--build-arg PIP_EXTRA_INDEX_URL=" in (ROOT / "docs/gpu.md").read_text()


@pytest.mark.parametrize("jetpack", sorted(JETSONS))
def test_a_jetson_installs_the_runtime_but_for_what_the_system_brings(jetpack: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["live"]]
    needed = {requirement.name: requirement for requirement in map(Requirement, texts)}
    found = listed(jetpack)
    cuda = JETSONS[jetpack][2]
    assert set(found) == set(needed) - {"opencv-python"} | {"numba-cuda", "cuda-toolkit"}
    assert found["numba-cuda"].extras == {f"cu{cuda}"}
    assert all(str(cuda) in str(specifier.version) for specifier in found["cuda-toolkit"].specifier)
    assert not found["numpy"].specifier.contains("2.0.0")  # the system's OpenCV was built for NumPy 1
    for name in set(found) & set(needed) - {"numpy"}:
        assert (found[name].specifier, found[name].extras) == (needed[name].specifier, needed[name].extras), name


PIP = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-input"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("jetpack", sorted(JETSONS))
def test_everything_has_a_wheel_for_a_jetson(jetpack: str, tmp_path: Path) -> None:
    """By pip's own resolver, as if it ran there; nothing is installed."""
    near = [*PIP, "-q", "--no-deps", "--retries=1", "--timeout=20", "typer"]
    if subprocess.run(near, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("the package index cannot be reached")
    python, glibc, _ = JETSONS[jetpack]
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, glibc + 1)]
    report = tmp_path / "report.json"
    command = [
        *PIP, "--target", str(tmp_path), "--report", str(report),
        *("--python-version", python, "--implementation", "cp", "--platform=manylinux2014_aarch64", *platforms),
        *("--only-binary=:all:", "-r", str(ROOT / "deploy" / f"jetpack{jetpack}.txt")),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    items = json.loads(report.read_text())["install"]
    files = {
        canonicalize_name(item["metadata"]["name"]): item["download_info"]["url"].rpartition("/")[2] for item in items
    }
    assert {canonicalize_name(name) for name in listed(jetpack)} <= set(files)
    assert all(file.endswith(("-any.whl", "_aarch64.whl")) for file in files.values()), files
    assert files["openvino"].endswith("_aarch64.whl") and files["numba"].endswith("_aarch64.whl")
    # NVIDIA's own, and what the system brings
    assert not [name for name in files if name.startswith(("torch", "opencv", "tensorrt"))]


def test_the_settings_of_a_jetson_are_valid(tmp_path: Path) -> None:
    """Run with what this machine has: flags win over the file."""
    config = str(ROOT / "configs" / "jetson.yaml")
    output = tmp_path / "out.mp4"
    source = "synthetic:?size=160x120&frames=3&fps=10"
    flags = ["-o", str(output), "--engine", "openvino", "--precision", "fp32", "--decoder", "auto", "-q"]
    result = CliRunner().invoke(app, ["annotate", source, "--config", config, *flags])
    assert result.exit_code == 0, result.output
    assert output.stat().st_size > 0
    assert read_card(model_paths()["street-open"]).input.multiple


def test_the_service_starts_a_command_that_is_there() -> None:
    service = configparser.RawConfigParser(strict=False)
    service.read(ROOT / "deploy" / "perception-live.service")
    command = shlex.split(service["Service"]["ExecStart"])
    assert command[:2] == ["/opt/perception/bin/perception", "live"]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {name for parameter in commands["live"].params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in command if word.startswith("--")} <= known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_service(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "perception-live.service").read_text()
    text = re.sub(r"^(ExecStart=)\S+", rf"\1{sys.executable}", text, flags=re.MULTILINE)  # it looks whether it is there
    unit = tmp_path / "perception-live.service"
    unit.write_text(re.sub(r"^ExecStartPre=.*\n", "", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert done.returncode == 0 and not said, done.stderr


def test_a_jetson_builds_verifies_and_serves_one_engine() -> None:
    """One input size throughout the page, its settings and its service: another one would be built for minutes."""
    page = (ROOT / "docs" / "jetson.md").read_text()
    settings = yaml.safe_load((ROOT / "configs" / "jetson.yaml").read_text())
    service = (ROOT / "deploy" / "perception-live.service").read_text()
    live = yaml.safe_load((ROOT / "configs" / "live.yaml").read_text())
    used = re.findall(r"^\s+.*\bperception (?:build|verify|bench|annotate|live) .*", page, re.MULTILINE)
    sizes = {size for line in [*used, service] for size in re.findall(r"--size[ =](\S+)", line)}
    sizes |= {str(one["size"]) for one in (settings, live) if "size" in one}
    assert len(used) >= 5 and not sizes
    card = read_card(model_paths()["street-open"])
    assert f"its own size, {card.input.width}x{card.input.height}" in page
    assert (
        {str(settings["precision"])} == set(re.findall(r"perception build [\w-]+ --precision (\w+)", page)) == {"fp16"}
    )
    assert settings["model"] == live["model"] == "street-open"


def test_the_folder_of_a_user_is_made_before_it_is_written_into() -> None:
    """The service's cache is made at its first start, and what is built in advance comes before."""
    page = (ROOT / "docs" / "jetson.md").read_text()
    service = configparser.RawConfigParser(strict=False)
    service.read(ROOT / "deploy" / "perception-live.service")
    made = page.index("sudo install -d -m 700 -o perception -g perception /var/cache/perception")
    assert page.index("useradd") < made < page.index("sudo -u perception XDG_CACHE_HOME=/var/cache/perception")
    assert "XDG_CACHE_HOME=/var/cache/perception" in service["Service"]["Environment"]
    assert int(service["Service"]["CacheDirectoryMode"], 8) == 0o700


def test_a_service_in_a_container_can_be_reached() -> None:
    """On its own address inside, on that which is named outside."""
    for name in ("Dockerfile", "README.md"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if re.search("docker run.* live ", line)]
        assert lines and all("-p " in line and "--host 0.0.0.0" in line for line in lines)


def test_the_gpu_page_says_what_to_install_before_its_tests() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    steps = page[page.index("With a GPU, in this order") :]
    extras = {name for group in re.findall(r"pip install -e '\.\[([\w,-]+)\]'", steps) for name in group.split(",")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"dev", "tensorrt"} <= extras <= set(project["optional-dependencies"])
    assert steps.index("pip install") < steps.index("pytest tests/gpu")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell")
def test_the_bundle_for_a_gpu_machine_is_small_and_whole(tmp_path: Path) -> None:
    near = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries=1", "-d", str(tmp_path), "typer"]
    if subprocess.run(near, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("the package index cannot be reached")
    bundle = tmp_path / "bundle"
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / "gpu-check-bundle.sh"), str(bundle)],
        env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) < 25 << 20
    wheels = {canonicalize_name(path.name.split("-")[0]): path for path in (bundle / "wheels").iterdir()}
    assert {"perception-streams", "pydantic", "pydantic-core", "platformdirs", "filelock", "pyyaml"} <= set(wheels)
    assert all(path.name.endswith("none-any.whl") or "cp312" in path.name for path in wheels.values())
    with zipfile.ZipFile(wheels["perception-streams"]) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".onnx")]
        listed = wheel.read("perception/weights/SHA256SUMS").decode().split()[1::2]
    assert sorted(Path(name).name for name in names) == sorted(listed) == ["street-open-int8.onnx", "street-open.onnx"]
    assert "perception.gpu_check" in (bundle / "gpu-check.sh").read_text()


def test_a_wheel_has_the_cards_and_everything_else_that_is_read(tmp_path: Path) -> None:
    """Built from a copy, in which the weights are empty: only names matter here."""
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    there = [p for p in (ROOT / "perception").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    for path in there:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".onnx":
            target.touch()
        else:
            shutil.copy(path, target)
    script = f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"perception/foreign/cards/{name}.yaml" for name in shipped_cards()} <= names
    only_for_node = "perception/server/page/static/package.json"  # says to its tests how the modules are read
    assert {path.relative_to(ROOT).as_posix() for path in there} <= {*names, only_for_node}
    (licences,) = {name.partition("/")[0] for name in names if name.endswith("/METADATA")}
    assert {f"{licences}/licenses/LICENSE", f"{licences}/licenses/NOTICE"} <= names


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
    ],
)
def test_workflows_and_forms_of_the_repository_are_valid(schema: str, pattern: str) -> None:
    files = [str(path) for path in sorted(ROOT.glob(pattern))]
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_run_targets_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in sorted(ROOT.glob(".github/workflows/*.yml")):
        steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
        used = {word for step in steps for word in re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.M)}
        assert used <= targets, path
