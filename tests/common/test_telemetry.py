"""Nothing that runs here reports to anybody: libraries that would are imported so that they do not."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import perception
from tests.models import write_model

WATCHED = """
import sys
asked = []
sys.addaudithook(lambda event, args: asked.append((event, args)) if event.startswith("socket.") else None)
import perception
from perception.diagnostics.doctor import diagnose
with perception.open_source("synthetic:?size=64x48&frames=2") as source:
    with perception.load_model(sys.argv[1], engine="openvino", precision="fp32") as model:
        assert len(list(perception.predict(source, model))) == 2
assert any(check.name == "openvino" for check in diagnose())
assert "openvino" in sys.modules and "openvino_telemetry" not in sys.modules
assert asked == [], asked
"""


def test_openvino_reports_to_nobody_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    pytest.importorskip("openvino_telemetry", reason="OpenVINO has no reports here")
    model = write_model(tmp_path / "colors.onnx", detection=True)
    home = tmp_path / "home"
    home.mkdir()
    # what it looks at to find out whether it is under test, where it never reports
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(model)], env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert list(home.glob("*")) == []


def test_a_package_that_was_there_before_is_there_after() -> None:
    code = """
import sys, types
mine = sys.modules["openvino_telemetry"] = types.ModuleType("openvino_telemetry")
from perception.common.telemetry import no_telemetry
with no_telemetry():
    try:
        import openvino_telemetry
    except ImportError:
        pass
    else:
        raise AssertionError
import openvino_telemetry
assert openvino_telemetry is mine
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_openvino_is_imported_in_one_way() -> None:
    """Whoever imports it first decides for the process; where it is already imported, names may be taken from it."""
    root = Path(perception.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "openvino" not in text:
            continue
        tree = ast.parse(text)
        types_only = {
            id(inner) for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" for inner in ast.walk(node)
        }  # fmt: skip
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if id(node) not in types_only and any(name.partition(".")[0] == "openvino" for name in names):
                found.add(path.relative_to(root).as_posix())
    assert found == {"engines/openvino.py"}
