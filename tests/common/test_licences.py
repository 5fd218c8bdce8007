"""Which licences pass as ones that allow commercial use."""

from __future__ import annotations

import pytest

from perception.common.licences import COMMERCIAL_USE, commercial_use_fault


@pytest.mark.parametrize(
    "licence",
    [
        *COMMERCIAL_USE,
        "CC BY 4.0",
        "cc-by-4.0",
        "CC0 1.0",
        "Apache-2.0 (MLCommons)",
        "CC BY 4.0, pictures CC BY 2.0",
        "labels: MIT; pictures: Pexels",
    ],
)
def test_these_allow_it(licence: str) -> None:
    assert commercial_use_fault(licence) is None


@pytest.mark.parametrize(
    "licence",
    [
        "CC BY-NC 4.0",
        "CC BY-NC-SA 3.0",
        "research use, non-commercial",
        "CC BY 4.0, pictures CC BY-NC 2.0",
        "MIT (for research)",
        "noncommercial",
        "academic use",
    ],
)
def test_these_say_that_they_do_not(licence: str) -> None:
    assert "which does not allow commercial use" in (commercial_use_fault(licence) or "")


@pytest.mark.parametrize(
    "licence", ["unknown", "free", "GPL-3.0", "CC BY-SA 4.0", "CC BY-ND 4.0", "MIT or so", "(MIT)", "MIT,", "CC BY 9.0"]
)
def test_these_are_not_known(licence: str) -> None:
    assert "none of those known to allow commercial use: CC0, CC BY" in (commercial_use_fault(licence) or "")


@pytest.mark.parametrize("licence", ["", "  "])
def test_no_licence_is_none(licence: str) -> None:
    assert commercial_use_fault(licence) == "has no licence"
