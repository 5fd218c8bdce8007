"""Completion of the command line in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A search path on which this checkout is ``perception``."""
    command = tmp_path / "perception"
    entry = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from perception.commands.main import main; main()"
    command.write_text(f"#!{sys.executable}\n{entry}\n")  # as pip makes it
    command.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def shell(name: str, script: str, path: str) -> list[str]:
    done = subprocess.run([name, "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "among"),
    [
        ("perception anno", ["annotate"]),
        ("perception annotate --scor", ["--score"]),
        ("perception eval ", ["suite", "tracking", "segmentation"]),
        ("perception annotate --precision ", ["int8", "bf16"]),
    ],
)
def test_bash_completes_commands_options_and_choices(words: str, among: list[str], path: str) -> None:
    script = f"""
        eval "$(perception completion bash)"
        COMP_WORDS=({words.rstrip()} {"''" if words.endswith(" ") else ""})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _perception_completion perception
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    found = shell("bash", script, path)
    assert set(among) <= set(found)
    typed = words.rpartition(" ")[2]
    assert all(word.startswith(typed) for word in found)


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_the_other_shells_can_read_their_script(name: str, path: str) -> None:
    if shutil.which(name) is None:
        done = subprocess.run(
            ["sh", "-c", f"perception completion {name}"], env={**os.environ, "PATH": path}, check=True
        )
        assert done.returncode == 0
        pytest.skip(f"no {name} here to read it")
    shell(name, f"perception completion {name} | {name} -n", path)
