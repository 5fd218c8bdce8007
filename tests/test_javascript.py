"""The page's JavaScript: its own tests (tests/javascript) under Node, which needs no browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NODE = os.environ.get("NODE") or shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="there is no Node here (`apt-get install nodejs`, or set NODE to its path)")
@pytest.mark.parametrize("path", sorted((ROOT / "tests/javascript").glob("*.test.mjs")), ids=lambda p: p.name[:-9])
def test_javascript(path: Path) -> None:
    assert NODE is not None
    env = {**os.environ, "PYTHON": sys.executable}
    run = subprocess.run([NODE, "--test", str(path)], env=env, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    passed = [line for line in run.stdout.splitlines() if line.lstrip("#ℹ ").startswith("pass ")]
    assert passed and int(passed[-1].split()[-1]) > 0, run.stdout  # a file without tests passes as one
