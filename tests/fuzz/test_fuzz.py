"""A few hostile inputs of each family, always the same, and those that were faults once: ``make fuzz`` has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaign import Fault, Tally, campaign, corpus, table
from tests.fuzz.families import NAMES
from tests.fuzz.family import pack
from tests.fuzz.page import write_page

INPUTS = {"containers": 150, "pictures": 300, "settings": 100, "labels": 150}
"""In the quick suite: those that need no server and no compiled network. `SERVED` go together in the slow one."""

SERVED = tuple(name for name in NAMES if name not in INPUTS)


def told(tally: Tally) -> str:
    return "\n".join(f"{fault.index}: {fault.kind}: {fault.detail}" for fault in tally.faults)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("family", sorted(INPUTS))
def test_a_few_of_each_family(family: str) -> None:
    tally = campaign(family, INPUTS[family], seconds=240)
    assert not tally.faults, told(tally)
    assert tally.inputs == INPUTS[family]
    assert tally.outcomes["refused"] > 5 and tally.outcomes["accepted"] > 5, tally.outcomes


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", SERVED)
def test_a_few_of_each_family_that_takes_longer(family: str) -> None:
    tally = campaign(family, 150, seconds=900)
    assert not tally.faults, told(tally)
    assert tally.inputs == 150
    assert tally.outcomes["refused"] > 5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("family", [name for name in NAMES if corpus(name)])
def test_what_was_a_fault_once(family: str) -> None:
    kept = corpus(family)
    tally = campaign(family, 0, seconds=240, kept=kept)
    assert not tally.faults, "\n".join(f"{kept[fault.index].name}: {fault.detail}" for fault in tally.faults)
    assert tally.inputs == len(kept)


FAULTY = {
    "crash": b"import os; os.kill(os.getpid(), 11)",
    "traceback": b"1 / 0",
    "memory": b"x = b'x' * (1100 << 20); del x",
    "left": b"open('left', 'w').close()",
    "hang": b"import time; time.sleep(1000)",
    "logged": b"import logging; logging.getLogger('perception').error('x', exc_info=ValueError('y'))",
    "thread": b"import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
}


@pytest.mark.timeout(300)
def test_every_kind_of_fault_is_counted(tmp_path: Path) -> None:
    """By a family whose inputs are programs that do what must not be done."""
    fine = [b"pass", b"from perception.errors import UsageError; raise UsageError('no')"]
    paths = []
    for number, program in enumerate((*FAULTY.values(), *fine)):
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(pack(program, limit=1.0 if b"sleep" in program else 60.0))
    tally = campaign("programs", 0, seconds=240, kept=paths)
    kinds = [fault.kind for fault in tally.faults]
    assert kinds == ["crash", "traceback", "memory", "left", "hang", "traceback", "traceback"], told(tally)
    assert [fault.index for fault in tally.faults] == list(range(7))
    assert tally.inputs == 9
    assert tally.outcomes["refused"] == 1
    assert "SIGSEGV" in tally.faults[0].detail
    assert "ZeroDivisionError" in tally.faults[1].place


def test_inputs_depend_on_their_number_alone(tmp_path: Path) -> None:
    from tests.fuzz.labels import Inputs

    for name in ("one", "two"):
        (tmp_path / name / "scratch").mkdir(parents=True)
    one, two = (Inputs(tmp_path / name / "scratch") for name in ("one", "two"))
    backwards = [two.make(3, index) for index in reversed(range(30))]
    assert [one.make(3, index) for index in range(30)] == backwards[::-1]
    assert one.make(4, 0) != one.make(3, 0)


def test_the_page_keeps_what_was_not_tried(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\n<!-- end of the table -->\nafter\n")
    settings, pictures = Tally("settings", 5), Tally("pictures", 7, faults=[Fault("crash", 0, "x", b"")])
    write_page(page, [settings], 0)
    write_page(page, [pictures], 1)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    for tally in (settings, pictures):
        assert table([tally]).splitlines()[2] in text
    settings.inputs = 6
    write_page(page, [settings], 0)
    assert "| settings | 6 |" in page.read_text() and "| settings | 5 |" not in page.read_text()
