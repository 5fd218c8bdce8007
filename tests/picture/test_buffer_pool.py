"""A buffer that anybody still refers to is never handed out again, on any Python, from any thread."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import av
import numpy as np
import pytest

from perception.picture.buffer_pool import BufferPool
from perception.picture.encoder_frames import FrameMaker
from perception.picture.planes import Planes

ROOT = Path(__file__).parents[2]


def test_arrays_are_used_again_but_not_while_referred_to() -> None:
    pool = BufferPool(limit=2)
    first = pool.get((6, 4))
    address = first.ctypes.data
    row = first[2]
    del first
    assert pool.get((6, 4)).ctypes.data != address  # a view is left
    del row
    assert address in {array.ctypes.data for array in (pool.get((6, 4)), pool.get((6, 4)))}


def test_works_beyond_its_limit_and_for_other_sizes() -> None:
    pool = BufferPool(limit=3)
    held = [pool.get((10, 10)) for _ in range(7)]
    assert len({a.ctypes.data for a in held}) == 7
    kept = {a.ctypes.data for a in held[:3]}
    held.clear()
    again = [pool.get((10, 10)) for _ in range(3)]
    assert {a.ctypes.data for a in again} == kept
    again.clear()
    assert pool.get((4, 4)).shape == (4, 4)  # takes the place of one that is free


@pytest.mark.parametrize("seed", range(4))
def test_threads_that_hold_pass_on_and_drop_buffers(seed: int) -> None:
    """Each holder writes its own number into what it gets and finds it unchanged until the moment it lets go."""
    pool = BufferPool(limit=12)
    passed: deque[tuple[np.ndarray, int]] = deque(maxlen=5)  # dropping the oldest frees it in some other thread
    numbers = iter(range(1, 1 << 30))
    faults: list[int] = []

    def work(thread: int) -> None:
        choose = random.Random(100 * seed + thread)
        held: deque[tuple[np.ndarray, int]] = deque()
        for _ in range(400):
            number = next(numbers) % 251 + 1
            view = pool.get((64,)).reshape(8, 8)[:, 1:7]
            view[:] = number
            held.append((view, number))
            del view
            if choose.random() < 0.3:
                passed.append(held.popleft())
            while len(held) > choose.randrange(1, 4):
                array, wanted = held.popleft()
                if (array != wanted).any():
                    faults.append(wanted)
                array[:] = 0  # poison: whoever else holds this memory sees it
                del array
            try:
                array, wanted = passed.popleft()
            except IndexError:
                continue
            if (array != wanted).any():
                faults.append(wanted)
            array[:] = 0
            del array

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.parametrize("size_wh", [(64, 48), (62, 46), (63, 47)])
@pytest.mark.parametrize("kind", ["bgr", "planes"])
def test_frames_that_an_encoder_holds_stay_as_they_are(size_wh: tuple[int, int], kind: str) -> None:
    width, height = size_wh

    def picture(level: int) -> np.ndarray | Planes:
        if kind == "bgr":
            return np.full((height, width, 3), level, np.uint8)
        half = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
        return Planes(np.full((height, width), level, np.uint8), half, half)

    maker = FrameMaker(picture(0))
    held: deque[tuple[av.VideoFrame, np.ndarray]] = deque()
    for level in range(40, 200, 4):
        frame = maker.frame(picture(level))
        held.append((frame, frame.to_ndarray().copy()))
        if len(held) > 6:  # more than the pool keeps
            frame, as_made = held.popleft()
            assert (frame.to_ndarray() == as_made).all()
        del frame


COUNTS_LESS = """
import sys
import numpy as np
exact = sys.getrefcount
for shift in (-3, -1, 0, 2):
    sys.getrefcount = lambda thing: exact(thing) + shift
    for name in ("buffer_pool", "encoder_frames"):  # which count when they are imported
        sys.modules.pop(f"perception.picture.{name}", None)
    from perception.picture.encoder_frames import FrameMaker
    maker = FrameMaker(np.zeros((48, 64, 3), np.uint8))
    frames = [maker.frame(np.full((48, 64, 3), level, np.uint8)) for level in (40, 90, 140)]
    levels = [int(np.median(frame.to_ndarray()[:48])) for frame in frames]
    assert levels == sorted(set(levels)), (shift, levels)
    first = frames[0].planes[0].buffer_ptr
    frames.clear()
    again = [maker.frame(np.zeros((48, 64, 3), np.uint8)) for _ in range(3)]
    assert first in [frame.planes[0].buffer_ptr for frame in again], (shift, "memory is not used again")
"""


def test_a_python_that_counts_differently() -> None:
    """Interpreters differ in how many references a call itself adds; too few free a frame that is still encoded."""
    done = subprocess.run([sys.executable, "-c", COUNTS_LESS], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
