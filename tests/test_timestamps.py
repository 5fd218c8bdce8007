"""Believable time stamps: sane ones stay as they are, others become what a person would have written down."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.common.timestamps import JUMP_S, LOOK_AHEAD, ArrivalTimeline, Timeline, believed, clock_may_jump

TS = Fraction(1, 90_000)
STEP = 3600


def place(stamps, *, joins, step=STEP, time_base=TS):
    timeline = Timeline(time_base, step, joins)
    return [placed for placed, _ in believed(stamps, int, timeline)]


def regular(count, start=0, step=STEP):
    return [start + i * step for i in range(count)]


@given(
    st.lists(st.integers(1, 9 * 90_000), min_size=1, max_size=60),
    st.integers(-(2**40), 2**40),
    st.booleans(),
)
def test_sane_stamps_stay_as_they_are(gaps, start, joins):
    stamps = [start, *(start + total for total in np.cumsum(gaps).tolist())]
    assert place(stamps, joins=joins) == stamps


@given(st.lists(st.integers(1, 100 * 3600 * 90_000), min_size=1, max_size=40))
def test_every_pause_of_a_container_with_absolute_stamps_stays(gaps):
    stamps = [0, *np.cumsum(gaps).tolist()]
    assert place(stamps, joins=False) == stamps


@given(st.lists(st.one_of(st.integers(-(2**45), 2**45), st.integers(-5, 5)), max_size=80), st.booleans())
def test_whatever_comes_stamps_increase_and_nothing_is_lost(stamps, joins):
    placed = place(stamps, joins=joins)
    assert len(placed) == len(stamps)
    assert all(b > a for a, b in pairwise(placed))


@given(
    st.lists(st.integers(5, 60), min_size=2, max_size=6),
    st.data(),
)
def test_parts_that_are_joined_follow_each_other(lengths, data):
    stamps, end = [], 0
    for length in lengths:
        ahead = data.draw(st.integers(2 * JUMP_S * 90_000, 2**40))
        back = data.draw(st.integers(STEP * 8, 2**40))
        start = end + data.draw(st.sampled_from((ahead, -back))) if stamps else 0
        part = regular(length, start)
        stamps += part
        end = part[-1]
    # Stretches of which one ends where the one before it had ended are one for whoever sees stamps only.
    assert place(stamps, joins=True) == regular(sum(lengths))


@settings(max_examples=200)
@given(
    st.lists(st.integers(LOOK_AHEAD + 3, 40), min_size=1, max_size=6),
    st.integers(1, LOOK_AHEAD),
    st.lists(st.integers(1, 2**40), min_size=6, max_size=6),
    st.sampled_from((1, -1)),
    st.booleans(),
)
def test_single_wrong_stamps_are_placed_where_their_frames_belong(distances, burst, how_far, sign, joins):
    count = sum(distances) + LOOK_AHEAD + 3
    stamps = regular(count, 10**6)
    for at, far in zip(np.cumsum(distances).tolist(), how_far, strict=False):
        for i in range(at, at + burst):
            stamps[i] += sign * (far + 2 * 90_000)
    assert place(stamps, joins=joins) == regular(count, 10**6)


@given(st.integers(2 * 90_000, 2**45), st.booleans())
def test_a_wrong_first_stamp(far, joins):
    stamps = regular(20, 5000)
    assert place([stamps[0] + far, *stamps[1:]], joins=joins) == stamps


def test_stamps_that_repeat_or_come_a_little_late_do_not_move_the_others():
    assert place([0, 3600, 3600, 7200, 10800], joins=True) == [0, 3600, 3601, 7200, 10800]
    assert place([0, 10800, 3600, 7200, 14400, 18000], joins=False) == [0, 10800, 10801, 10802, 14400, 18000]


def test_a_slow_rate_is_no_jump():
    minute = 60 * 90_000
    stamps = regular(10, 0, minute)
    assert place(stamps, joins=True, step=minute) == stamps


def test_things_that_are_held_come_before_the_error_that_ends_them():
    def failing():
        yield from (0, 3600, 10**9)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        seen.extend(placed for placed, _ in believed(failing(), int, Timeline(TS, STEP, True)))
    items = []
    source = believed(failing(), int, Timeline(TS, STEP, True))
    with pytest.raises(ValueError, match="broken"):
        for placed, item in source:
            items.append((placed, item))
    assert items == [(0, 0), (3600, 3600), (7200, 10**9)]


def test_a_sane_stamp_is_given_on_at_once():
    """A pipe that is live must not wait for frames that are still to come."""
    taken = []

    def stamps():
        for i in range(20):
            taken.append(i)
            yield i * STEP

    placed = believed(stamps(), int, Timeline(TS, STEP, True))
    for _ in range(LOOK_AHEAD + 2):
        next(placed)
    assert len(taken) == LOOK_AHEAD + 2


def test_which_containers_are_joined():
    from av.format import ContainerFormat

    joined = {n for n in ("mpegts", "mpeg", "hls", "flv", "ogg") if clock_may_jump(n, ContainerFormat(n, "r").flags)}
    assert joined == {"mpegts", "mpeg", "hls", "flv", "ogg"}
    for name in ("matroska", "mov", "avi"):
        assert not clock_may_jump(name, ContainerFormat(name, "r").flags)


def arrive(stamps, arrivals, *, stamped=True, waited=True):
    timeline = ArrivalTimeline(stamped)
    return np.array([timeline.place(s, a, waited) for s, a in zip(stamps, arrivals, strict=True)])


@given(st.lists(st.floats(-0.2, 0.2), min_size=30, max_size=120), st.floats(0, 1e6), st.floats(0, 1e5))
def test_stamps_of_a_sane_camera_are_told_whatever_the_network_does(jitter, start, now):
    stamps = start + np.arange(len(jitter)) / 25
    arrivals = np.maximum.accumulate(now + np.arange(len(jitter)) / 25 + np.array(jitter))
    told = arrive(stamps, arrivals)
    np.testing.assert_allclose(told, stamps - stamps[0], atol=1e-6)


@given(st.floats(0.001, 100).filter(lambda f: not 0.9 < f < 1.1), st.sampled_from((5, 10, 25, 50)))
def test_a_clock_in_another_unit_lasts_as_long_as_the_wall_says(factor, fps):
    arrivals = np.arange(20 * fps) / fps
    told = arrive(arrivals * factor, arrivals)
    assert np.all(np.diff(told) > 0)
    np.testing.assert_allclose(told, arrivals, atol=1.0)
    assert told[-1] == pytest.approx(arrivals[-1], abs=0.55)


@given(st.lists(st.integers(0, 499), max_size=10), st.floats(-1e5, 1e5).filter(lambda far: abs(far) > 6))
def test_single_wrong_stamps_of_a_camera_do_not_count(at, far):
    stamps = np.arange(500) / 25
    wrong = stamps.copy()
    wrong[[i for i in at if i > 0 and not {i - 1, i + 1, i - 2, i + 2} & set(at)]] += far
    told = arrive(wrong, stamps)
    np.testing.assert_allclose(told, stamps, atol=0.002)


@given(st.integers(1, 480), st.floats(-1e6, 1e6))
def test_a_clock_that_is_set_costs_no_time(at, by):
    stamps = np.arange(500) / 25
    wrong = stamps + np.where(np.arange(500) >= at, by, 0)
    told = arrive(wrong, stamps)
    assert np.all(np.diff(told) > 0)
    np.testing.assert_allclose(told, stamps, atol=0.6)


@given(st.floats(1, 30), st.integers(1, 400))
def test_a_network_that_stops_and_delivers_all_at_once(silence, at):
    stamps = np.arange(1000) / 25
    arrivals = stamps.copy()
    arrivals[at:] = np.maximum(arrivals[at:], stamps[at] + silence)
    told = arrive(stamps, arrivals)
    assert np.all(np.diff(told) > 0)
    assert np.all(told - arrivals < 0.6 + 0.001 * len(stamps))
    if silence < 20:
        assert told[-1] == pytest.approx(stamps[-1], abs=0.6)


def test_what_was_gathered_before_keeps_its_distances():
    stamps = np.arange(250) / 25
    arrivals = np.maximum(stamps - 4.0, 0)  # a hundred frames lie ready
    timeline = ArrivalTimeline()
    told = [timeline.place(s, a, bool(a > 0)) for s, a in zip(stamps, arrivals, strict=True)]
    np.testing.assert_allclose(told, stamps, atol=1e-6)


def test_without_a_clock_arrival_is_the_time():
    arrivals = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.4, 100))
    told = arrive(np.arange(100) / 25, arrivals, stamped=False)
    np.testing.assert_allclose(told, arrivals - arrivals[0])
    assert np.all(np.diff(arrive([None] * 100, [5.0] * 100)) > 0)


@given(st.lists(st.floats(-0.2, 0.2), min_size=30, max_size=60), st.floats(0, 1e5))
def test_a_first_frame_without_a_stamp_leaves_the_others_theirs(jitter, now):
    stamps = np.arange(len(jitter)) / 25
    arrivals = np.maximum.accumulate(now + stamps + np.array(jitter))
    arrivals[0] = now
    told = arrive([None, *stamps[1:]], arrivals)
    np.testing.assert_allclose(told, stamps, atol=1e-6)


def test_a_first_frame_without_a_stamp_before_a_clock_that_began_long_ago():
    stamps = 5000 + np.arange(100) / 25
    told = arrive([None, *stamps[1:]], np.arange(100) / 25)
    np.testing.assert_allclose(told, stamps - 5000, atol=1e-6)


def test_a_backlog_whose_clock_runs_in_another_unit_does_not_count():
    arrivals = np.maximum(np.arange(250) / 25 - 0.4, 0)  # ten frames lie ready
    timeline = ArrivalTimeline()
    stamps = np.arange(250) * 40_000 / 90_000  # microseconds
    told = [timeline.place(s, a, bool(a > 0)) for s, a in zip(stamps, arrivals, strict=True)]
    assert np.all(np.diff(told) > 0)
    assert told[-1] == pytest.approx(arrivals[-1], abs=0.7)
