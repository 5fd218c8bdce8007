"""Metrics that are asked when they are read."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

from perception.server.metrics import Metrics
from perception.server.rule_metrics import DeliveryCollector

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"


def test_the_engine_is_the_one_that_runs_now() -> None:
    """A GPU that was lost must not go on being named."""
    metrics, runs = Metrics(), ["TensorRT 11.4 on a GPU"]
    metrics.engine("street", lambda: runs[-1], lambda: 3)
    assert b'perception_engine_info{engine="TensorRT 11.4 on a GPU",model="street"} 1.0' in metrics.render()
    runs.append("OpenVINO")
    told = metrics.render()
    assert b'perception_engine_info{engine="OpenVINO",model="street"} 1.0' in told
    assert b"TensorRT" not in told and b'perception_queue_depth{model="street"} 3.0' in told


def test_the_page_has_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| (`perception_.*?) \| *(.*?) *\| .+ \|$", PAGE.read_text(encoding="utf-8"), re.M)
    told = {
        name: set(re.findall(r"`(\w+)`", labels)) for names, labels in rows for name in re.findall(r"`(\w+)`", names)
    }
    metrics = Metrics()
    metrics.engine("street", lambda: "OpenVINO", lambda: 0)
    metrics.render()
    metrics.watch_rules(list, None)
    there = {family.name: family for family in metrics.registry.collect()}
    delivery = SimpleNamespace(status=[], lost=0)
    there |= {family.name: family for family in DeliveryCollector(delivery).collect()}  # type: ignore[arg-type]
    assert set(told) == set(there)
    for name, family in there.items():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} <= told[name], name
