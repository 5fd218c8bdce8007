"""Metrics that are asked when they are read."""

from __future__ import annotations

from perception.server.metrics import Metrics


def test_the_engine_is_the_one_that_runs_now() -> None:
    """A GPU that was lost must not go on being named."""
    metrics, runs = Metrics(), ["TensorRT 11.4 on a GPU"]
    metrics.engine("street", lambda: runs[-1], lambda: 3)
    assert b'perception_engine_info{engine="TensorRT 11.4 on a GPU",model="street"} 1.0' in metrics.render()
    runs.append("OpenVINO")
    told = metrics.render()
    assert b'perception_engine_info{engine="OpenVINO",model="street"} 1.0' in told
    assert b"TensorRT" not in told and b'perception_queue_depth{model="street"} 3.0' in told
