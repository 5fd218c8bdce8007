"""Which frames of a camera are looked at, at a target rate."""

import numpy as np
import pytest

from perception.sources.pace import Pace


def taken(fps, times):
    pace = Pace(1 / fps)
    return [time for time in times if pace.takes(time)]


@pytest.mark.parametrize(
    ("source", "target"), [(25, 5), (30, 2), (30, 29), (25, 25), (24, 7), (60, 0.5), (10, 30), (15, 4)]
)
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_the_rate_is_met_and_never_exceeded(source, target, jitter):
    seconds = 60
    rng = np.random.default_rng(source)
    times = (np.arange(seconds * source) + jitter * rng.uniform(-1, 1, seconds * source)) / source
    times -= times[0]
    count = len(taken(target, times.tolist()))
    expected = seconds * min(source, target)
    assert expected - max(2, 0.03 * expected) <= count <= seconds * target + 1


def test_frames_are_spread_evenly():
    steps = np.diff(taken(5, [i / 30 for i in range(300)]))
    assert steps == pytest.approx(0.2)


def test_a_gap_is_not_caught_up_with():
    times = [i / 25 for i in range(50)] + [100 + i / 25 for i in range(50)]
    after = [time for time in taken(5, times) if time >= 100]
    assert after[:3] == pytest.approx([100.0, 100.2, 100.4])


def test_it_can_be_changed():
    pace = Pace()
    assert all(pace.takes(i / 25) for i in range(10))
    pace.step_s = 1.0
    assert [i for i in range(10, 60) if pace.takes(i / 25)] == [10, 35]
    pace.step_s = 0.0
    assert all(pace.takes(i / 25) for i in range(60, 70))


def test_more_frames_from_the_next_one_on():
    pace = Pace(10.0)
    assert [i for i in range(30) if pace.takes(i / 25)] == [0]
    pace.step_s = 0.4
    assert [i for i in range(35, 56) if pace.takes(i / 25)] == [35, 45, 55]
