"""SIGKILL at a random moment of an annotation that writes ten outputs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import av

from tests.faults.annotation import LIVE, OTHERS, SOURCE, annotating, command, lines_in, model_in, until
from tests.faults.outputs import DOCUMENTS, FILES, GROWING, VIDEOS, indices_of, looks_finished
from tests.faults.row import Outcome, Work, spread

FEW = 8
"""Frames that may be lost where they come so slowly that these are more than a second: two that the encoder holds, one
that it is given, two that wait for it, and the three of a fragment of a quarter of a second and what ends it."""

LONGEST_S = 5.0
"""Of a run, from its first frame to its end."""


def run(work: Work) -> Outcome:
    """Kill it, and read what is there: all that grows, up to the last frame that JSON Lines has."""
    outcome = Outcome()
    model = model_in(work.folder)
    behind: dict[str, list[float]] = {}
    frames = early = 0
    for number in range(work.count):
        folder = work.folder / str(number)
        video = VIDEOS[number % len(VIDEOS)]
        live = number // len(VIDEOS) % 2 == 0
        words = command(model, LIVE if live else SOURCE, folder, (video, *OTHERS))
        with outcome.trial(f"run {number} ({video}, {'live' if live else 'as fast as it can'})"):
            with annotating(words) as process:
                if number % 10 != 9:
                    until(lambda f=folder: lines_in(f / FILES["jsonl"]), process)  # type: ignore[misc]
                    time.sleep(work.random.uniform(0, LONGEST_S))
                else:  # at any moment of its start
                    early += 1
                    time.sleep(work.random.uniform(0, LONGEST_S))
                assert process.poll() is None, "it ended by itself"
                process.kill()
            count = _check(folder, video, live, behind)
            frames += count
        shutil.rmtree(folder, ignore_errors=True)
    outcome.figures["frames written"] = str(frames)
    outcome.figures["killed while starting"] = str(early)
    for video in VIDEOS:
        if behind.get(video):
            outcome.figures[f"lost at the end of {video}"] = spread(behind[video], "s", 2)
    others = [value for name, values in behind.items() if name not in VIDEOS for value in values]
    outcome.figures["lost at the end of the others"] = spread(others, "s", 2)
    return outcome


def _check(folder: Path, video: str, live: bool, behind: dict[str, list[float]]) -> int:
    """Read everything; the frames that JSON Lines has."""
    for output in DOCUMENTS:
        assert not looks_finished(output, folder), f"{output} looks finished"
    if not (folder / FILES["jsonl"]).exists():
        return 0
    told = indices_of("jsonl", folder)
    assert told == list(range(len(told))) or live, "jsonl: frames are missing"
    for output in (video, *(kind for kind in GROWING if kind not in VIDEOS)):
        found = _indices_of(output, folder)
        length = (told[-1] - told[0] + 1) / 25 if told else 0.0
        reached = told[0] + found[-1] if found and output in VIDEOS else found[-1] if found else None
        lost = length if reached is None else max(0.0, (told[-1] - reached) / 25)
        behind.setdefault(output, []).append(lost)
        frames = sum(index > (-1 if reached is None else reached) for index in told)
        assert lost <= 1.0 or frames <= FEW, f"{output}: {lost:.2f} s of {length:.2f} s are lost, {frames} frames"
    return len(told)


def _indices_of(output: str, folder: Path) -> list[int]:
    """As `indices_of`; nothing where nothing is there yet, or a video that does not play yet."""
    place = folder / FILES[output]
    if not place.exists() or (place.is_file() and not place.stat().st_size):
        return []
    try:
        return indices_of(output, folder)
    except av.FFmpegError:
        return []
