"""docs/troubleshooting.md: every message is under a topic, and what is quoted is what the package says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from perception import errors

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \| .+ \| .+ \|$", PAGE, re.M)
ELSEWHERE = {
    "libGL.so.1: cannot open shared object file",  # said by the loader of libraries
    "there is not enough memory",  # errors.out_of_memory
    "lets others in: set a token, or a user and password",  # a validator's, which `wrong settings:` quotes
}
"""Not written where an error is made."""


@pytest.fixture(scope="module")
def reference() -> Any:
    path = ROOT / "docs" / "site" / "reference" / "messages.py"
    spec = importlib.util.spec_from_file_location("messages_of_the_package", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def topics() -> list[str]:
    lists = re.findall(r"^<!-- generated: messages (.*) -->$", PAGE, re.M)
    return [room for rooms in lists for room in rooms.split(",")]


def test_the_messages_of_every_room_are_under_one_topic(reference: Any) -> None:
    assert sorted(topics()) == sorted(reference.messages())


def test_what_is_quoted_is_said(reference: Any) -> None:
    kinds = {name for name in vars(errors) if name.endswith("Error")}
    quoted = [text for text in QUOTED if text not in kinds]
    assert len(quoted) > 40
    said = "\n".join(text for texts in reference.messages().values() for text in texts)
    assert [text for text in quoted if text not in said and text not in ELSEWHERE] == []
    source = (ROOT / "perception" / "server" / "settings.py").read_text() + str(errors.out_of_memory(MemoryError()))
    assert all(text in source or text.startswith("libGL") for text in ELSEWHERE)


def test_every_kind_of_error_is_explained_with_its_exit_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+Error)` \| (\d) \|", PAGE, re.M))
    kinds = {name: kind for name, kind in vars(errors).items() if name.endswith("Error")}
    assert rows == {name: str(kind.exit_code) for name, kind in kinds.items()}


def test_messages_are_found_in_the_code(reference: Any) -> None:
    found = reference.messages()
    assert "another batch is writing into this folder; wait for its end" in found["batch"]
    assert "… needs …; install it with: …" in found["common"]
    assert any("credentials" in text or "password" in text for text in found["server"])  # of subclasses, too
