"""YAML settings files."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.common.settings import load_config, size
from perception.errors import UsageError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_keys_may_have_dashes(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "max-frames: 3\ncrf: 20"), ["max_frames", "crf"]) == {"max_frames": 3, "crf": 20}


def test_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing\n"), ["crf"]) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_frame: 3", r"unknown setting 'max_frame'; did you mean 'max-frames'\?"),
        ("zzz: 3", "unknown setting 'zzz'; known are: crf, max-frames"),
        ("- a\n- b", "must be a mapping"),
        ("a: [1", "not YAML"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as info:
        load_config(path, ["crf", "max_frames"])
    assert str(path) in str(info.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope.yaml: cannot read"):
        load_config(tmp_path / "nope.yaml", [])


def test_sizes() -> None:
    assert size(None) is None
    assert size("640x480") == (640, 480) == size("640X480")
    for wrong in ("640", "x480", "0x480", "640x480x3", "-1x2", "a x b", "1.5x2"):
        with pytest.raises(UsageError, match="WxH"):
            size(wrong)
