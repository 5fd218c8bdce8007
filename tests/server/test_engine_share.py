"""How far apart frames are asked for where the engine has not time for all, and that all cameras get as much."""

import heapq
import random
import statistics
from collections import deque

import pytest

from perception.server.inference.engine_share import FORGOTTEN_S, MANY, MOST_S, SCARCE_S, EngineShare
from perception.server.inference.fair_queue import FairQueue
from perception.sources.thinner import Spacing, Thinner
from tests.server.clocks import ManualClock


class Packet:
    size = 1000

    def __init__(self, is_keyframe):
        self.is_keyframe = is_keyframe


class Camera:
    """Gives packets at 25 a second, some of which are decoded; the newest frame waits for its turn."""

    def __init__(self, number, gop, rng):
        self.thinner = Thinner()
        self.gop = gop
        self.count = rng.randrange(gop)
        self.begins = rng.random() / 25
        self.weight = 1.0
        self.name = str(number)
        self.lost = False
        self.turns, self.decoded, self.packets = 0, 0, 0
        self.waited = 0.0
        self.ages = []

    def packet(self, now, interval_s):
        """Whether a frame comes of it that is to be looked at."""
        self.thinner.spacing = Spacing(0.0, interval_s / self.weight)
        due = self.thinner.admit(Packet(self.count % self.gop == 0), now)
        self.count += 1
        self.packets += 1
        self.decoded += len(due.packets)
        return bool(due.packets) and self.thinner.takes(due.packets[-1].is_keyframe)


def simulated(gops, *, core_s, decode_s, seconds, counted_from, cores=2.0, seed=0):
    """Cameras and an engine that share cores, in a time of their own: turns go round, decoding goes first.

    Returns:
        the cameras, with what they had after ``counted_from``; the share.
    """
    rng = random.Random(seed)
    cameras = [Camera(number, gop, rng) for number, gop in enumerate(gops)]
    clock = [0.0]
    share, queue, serving = EngineShare(lambda: clock[0]), FairQueue(), None
    spent = deque()  # when something was decoded
    events = [(camera.begins, number, "packet") for number, camera in enumerate(cameras)]
    heapq.heapify(events)
    while events:
        now, number, kind = heapq.heappop(events)
        if now > seconds:
            break
        camera = cameras[number]
        if kind == "packet":
            heapq.heappush(events, (now + 0.04, number, "packet"))
            before = camera.decoded
            wanted = camera.packet(now, share.interval_s)
            spent.extend([now] * (camera.decoded - before))
            if wanted:
                camera.lost |= queue.replace(camera.name, now, camera.weight) is not None
        else:
            queue.end(serving)
            serving = None
            clock[0] = now
            share.turn(camera.name, camera.lost, camera.waited)
            camera.lost = False
            camera.turns += now > counted_from
        if now <= counted_from:
            for each in cameras:
                each.decoded = each.packets = 0
        if serving is None and (taken := queue.take(alone=True)) is not None:
            serving, came = taken
            cameras[int(serving.name)].waited = now - came
            if now > counted_from:
                cameras[int(serving.name)].ages.append(now - came)
            while spent and spent[0] < now - 1:
                spent.popleft()
            free = max(cores - decode_s * len(spent), 0.2)
            share.frame_s = core_s / free
            heapq.heappush(events, (now + share.frame_s, int(serving.name), "turn"))
    return cameras, share


def rate(cameras, seconds):
    return sum(camera.turns for camera in cameras) / seconds


@pytest.mark.parametrize("gop", [25, 50])
def test_sixteen_cameras_get_as_much_as_one(gop):
    """Of 25 frames a second that cost 3 ms each to decode, and an engine that needs 45 ms of both cores for each."""
    costs = {"core_s": 0.045, "decode_s": 0.003, "seconds": 150, "counted_from": 60}
    one, share = simulated([gop], **costs)
    assert share.interval_s == 0 and one[0].decoded == one[0].packets
    many, share = simulated([gop] * 16, **costs)
    assert share.interval_s > 0
    assert rate(many, 90) >= 0.9 * rate(one, 90)
    turns = [camera.turns for camera in many]
    assert max(turns) <= 1.2 * min(turns)
    part = sum(camera.decoded for camera in many) / sum(camera.packets for camera in many)
    assert part < 0.75
    assert statistics.median(age for camera in many for age in camera.ages) < 0.25


def test_cameras_with_few_key_frames_and_with_many_get_as_much(seed=1):
    cameras, _ = simulated([25] * 8 + [250] * 8, core_s=0.045, decode_s=0.003, seconds=150, counted_from=60, seed=seed)
    turns = [camera.turns for camera in cameras]
    assert max(turns) <= 1.25 * min(turns)
    assert all(camera.decoded < 0.7 * camera.packets for camera in cameras[:8])
    assert all(camera.decoded == camera.packets for camera in cameras[8:])


def test_where_there_is_time_for_all_nothing_is_left_out():
    cameras, share = simulated([25] * 4, core_s=0.018, decode_s=0.001, seconds=30, counted_from=5)
    assert share.interval_s == 0
    assert all(camera.decoded == camera.packets for camera in cameras)


class Crowd:
    """Clients that have their turns one after the other."""

    def __init__(self, count, frame_s=0.01):
        self.clock = ManualClock()
        self.share = EngineShare(self.clock)
        self.share.frame_s = frame_s
        self.names = [str(number) for number in range(count)]

    def turns(self, rounds, apart_s, lost=True, **told):
        for _ in range(rounds):
            for name in self.names:
                self.clock.advance(apart_s / len(self.names))
                self.share.turn(name, lost, **told)
        return self.share.interval_s


def test_a_moment_of_few_turns_changes_nothing():
    crowd = Crowd(1)
    assert crowd.turns(8, 1.0) == 0  # the first one tells nothing
    assert crowd.turns(1, 0.1, lost=False) == 0
    assert crowd.turns(7, 1.0) == 0


def test_it_ends_when_there_is_time_again():
    crowd = Crowd(16, frame_s=0.06)
    assert 0.9 < crowd.turns(20, 0.96) <= 1.2 * 0.96
    asked = [crowd.share.interval_s]
    while asked[-1]:
        asked.append(crowd.turns(1, asked[-1], lost=False))
        assert len(asked) < 100
    assert asked == sorted(asked, reverse=True)
    assert asked[-2] * 0.8 < max(SCARCE_S, MANY * 0.06)


def test_it_ends_when_the_others_have_gone():
    crowd = Crowd(16, frame_s=0.06)
    assert crowd.turns(20, 0.96) > 0.9
    crowd.names = crowd.names[:1]
    spent = 0.0
    while interval := crowd.share.interval_s:
        crowd.turns(1, interval, lost=False)
        spent += interval
        assert spent < FORGOTTEN_S + 2


def test_it_ends_when_the_engine_is_quick_again():
    crowd = Crowd(16, frame_s=0.5)
    assert crowd.turns(20, 8.0) == MOST_S
    crowd.share.frame_s = 0.01
    assert crowd.turns(1, MOST_S, lost=False) == 0


def test_frames_that_wait_long_are_asked_for_further_apart():
    crowd = Crowd(16, frame_s=0.06)
    crowd.turns(2, 0.96)
    before = crowd.turns(3, 0.96, lost=False)
    after = crowd.turns(1, 0.96, lost=False, waited_s=0.5)
    assert after > before
    assert crowd.turns(1, 0.96, lost=False, waited_s=0.1) < after
    # Who has twice the weight asks for its frames half as far apart.
    assert crowd.turns(1, 0.96, lost=False, waited_s=0.25, weight=2.0) > crowd.turns(1, 0.96, lost=False, waited_s=0.1)


def test_who_wants_few_tells_only_of_what_it_could_not_have():
    crowd = Crowd(16, frame_s=0.06)
    crowd.turns(2, 0.96)
    before = crowd.turns(3, 0.96, lost=False)
    assert crowd.turns(3, 0.96, lost=False, eager=False) == before
    assert crowd.turns(1, 0.96, lost=True, eager=False) > before


def test_a_slow_engine_is_not_a_crowded_one():
    few = Crowd(3, frame_s=0.4)
    assert few.turns(30, 1.2) == 0
    many = Crowd(6, frame_s=0.4)
    assert many.turns(30, 2.4) > 2.3


def test_turns_that_come_often_enough_are_not_scarce():
    assert Crowd(16).turns(10, 0.9 * SCARCE_S) == 0
