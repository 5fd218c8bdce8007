"""`perception bench scaling`: points of all axes, and how growth is told; no figure is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.bench.scaling import AXES, draw_growth, judged, measure_point
from perception.errors import PerceptionError
from tests.models import write_model


@pytest.mark.parametrize("power", [0, 0.5, 1, 1.2, 2])
def test_growth_is_the_power_of_the_value(power: float) -> None:
    rows = [{"axis": "boxes", "value": value, "core_ms": 0.3 * value**power} for value in (1, 10, 200)]
    last = judged(rows)[-1]
    assert last["exponent"] == pytest.approx(power, abs=0.006)
    growth = "less than linear" if power < 1 else "linear" if power == 1 else "worse than linear"
    assert last["growth"] == growth


@pytest.mark.parametrize("axis", list(AXES))
def test_a_point_of_each_axis(axis: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "colors.onnx", width=64, height=48, detection=True)
    value = {"pixels of a frame, annotated": 128 * 72, "frames of a video, data": 10}.get(axis, 3)
    figures = measure_point(axis, value, str(model), tmp_path)
    assert figures["core_ms"] > 0 and 20 < figures["memory_mib"] < 4000


def test_a_point_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=r"nothing\.onnx"):
        measure_point("pixels of a frame, annotated", 128 * 72, str(tmp_path / "nothing.onnx"), tmp_path)


def test_the_plot_has_a_part_for_each_axis(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"axis": axis, "value": v, "core_ms": v + 1.0, "memory_mib": 99.0} for axis in AXES for v in (0, 1, 10)]
    draw_growth(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
