"""YAML that would make a reader hang, fill the memory or fail otherwise than with a line."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from perception.common.plain_yaml import DEEPEST, MOST_BYTES, MOST_VALUES, parse_yaml
from perception.errors import PerceptionError
from tests.fuzz.settings import READERS

ROOT = Path(__file__).parents[2]
GOOD = sorted([*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("perception/**/*.yaml")])


@pytest.mark.parametrize("path", GOOD, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_good_is_what_pyyaml_says(path: Path) -> None:
    assert parse_yaml(path.read_bytes()) == yaml.safe_load(path.read_text())


def bomb(width: int, depth: int) -> str:
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth)]
    return "\n".join(lines)


WRONG = {
    "a date": "x: 2020-13-45",
    "a time": "x: 2020-01-01 99:99:99",
    "a number": "x: !!int x",
    "no number": "x: !!float ''",
    "no time": "x: !!timestamp x",
    "too many digits": f"x: {'9' * 5000}",
    "a bomb": bomb(9, 9),
    "a list in itself": "x: &x [*x]",
    "a mapping in itself": "x: &x {a: {b: *x}}",
    "merged into itself": "x: &x\n  <<: *x\n  y: 1",
    "deep": "[" * 20_000 + "]" * 20_000,
    "deep mappings": "{a: " * 300 + "1" + "}" * 300,
    "deep keys": "? " * 200 + "x",
    "long": "x: 1\n" * (MOST_BYTES // 5 + 1),
    "Python": "x: !!python/object/apply:os.getpid []",
    "no text": "\udcff",
    "nothing printable": "x: \x01",
}


@pytest.mark.parametrize("kind", sorted(READERS))
@pytest.mark.parametrize("fault", sorted(WRONG))
def test_what_is_wrong_is_one_line_in_every_reader(fault: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(WRONG[fault].encode("utf-8", "surrogateescape"))
    with pytest.raises(PerceptionError) as caught:
        READERS[kind](path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_limits_are_exact() -> None:
    assert parse_yaml(b"[" * DEEPEST + b"]" * DEEPEST)
    with pytest.raises(ValueError, match="nested"):
        parse_yaml(b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1))
    row = "r: &r [" + "1," * 99 + "]\n"  # 100 values: itself and 99
    rows = (MOST_VALUES - 104) // 100
    most = f"{row}a: [{', '.join(['*r'] * rows)}]"
    assert len(parse_yaml(most.encode())["a"]) == rows
    with pytest.raises(ValueError, match="aliases counted"):
        parse_yaml(f"{row}a: [{', '.join(['*r'] * (rows + 1))}]".encode())


def test_aliases_that_are_meant_stay() -> None:
    data = parse_yaml(b"base: &b {x: 1, y: [2]}\nmine: {<<: *b, x: 3}\nagain: *b\nday: 2026-11-22")
    assert data["mine"] == {"x": 3, "y": [2]}
    assert data["again"] is data["base"]
    assert data["day"] == datetime.date(2026, 11, 22)
    assert parse_yaml(b"") is None


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """In a process that may have little of it: nine lines that stand for 10 ** 27 values."""
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb(30, 18))
    script = (
        "import sys, resource\n"
        "from perception.common.settings import read_yaml; from perception.errors import UsageError\n"
        "import yaml, perception.common.plain_yaml\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_yaml(sys.argv[1], 'card')\n"
        "except UsageError as error: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    grown, said = done.stdout.split(" ", 1)
    assert int(grown) < 20_000, done.stdout  # kilobytes
    assert "has more than 100000 values" in said


def test_keys_that_yaml_takes_for_truths_are_texts() -> None:
    """`on:` is a key of conditions."""
    data = parse_yaml(b"on: yes\noff: no\n'yes': on\nNo: {on: [on, true]}\ntrue: 1\n? !!bool on\n: 2\n")
    assert data == {"on": True, "off": False, "yes": True, "No": {"on": [True, True]}, True: 1} | {"on": 2}
