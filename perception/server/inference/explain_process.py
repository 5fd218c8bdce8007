"""Saliency maps, computed in a separate process: the only place of the server where torch is imported.

``python -m perception.server.inference.explain_process`` reads a line of JSON and a picture from its standard input,
and writes a line of JSON and a PNG to its standard output. Beside it the server keeps its memory (torch would stay in
it for good), its event loop and its turn at the cores: the process has a low priority, and can be ended at any time.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, get_args

import cv2
import numpy as np

from perception.common.distribution import install_hint
from perception.common.programs import program
from perception.errors import PerceptionError, UsageError
from perception.server.problems import Busy, NotInstalled
from perception.types import U8

log = logging.getLogger("perception")

Method = Literal["gradient", "guided", "deconvnet", "smoothgrad", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)

NEEDED = ("torch", "captum")

MAX_SIDE = 1280
"""Longer side, in pixels, that pictures are scaled down to: maps are no finer than a network's input."""

TIMEOUT_S = 300.0
"""Time limit of an explanation, in seconds."""

_POLL_S = 0.2


def missing() -> str | None:
    """Return one line on what must be installed before anything can be explained, or None."""
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if not lacking:
        return None
    return f"explanations need {' and '.join(lacking)}; install them with: {install_hint('train', *NEEDED)}"


@dataclass(frozen=True)
class Question:
    """A request to explain a picture; see `perception.explain.maps.explain`.

    Attributes:
        model: the ``.onnx`` file.
        card: YAML card of a model without one.
        at: a point (x, y) in pixels of the picture.
    """

    model: Path
    card: str | Path | None = None
    method: Method = "smoothgrad"
    class_name: str | None = None
    task: str | None = None
    at: tuple[float, float] | None = None


@dataclass(frozen=True)
class Answer:
    """The explanation of a picture.

    Attributes:
        png: the picture with the heat map over it.
        what: what is explained, in words.
        box: xyxy, in pixels of the PNG, of the detection that is explained, or None.
    """

    png: bytes
    what: str
    box: tuple[float, float, float, float] | None


def write_down(image: U8, question: Question) -> bytes:
    """Serialize a question with its picture, scaled down to a few megabytes, for `explain`.

    Args:
        image: uint8 ``[H, W, 3]`` BGR.
        question: what to explain of it.

    Raises:
        UsageError: it is about a point outside the picture.
    """
    height, width = image.shape[:2]
    at = question.at
    if at is not None and not (0 <= at[0] < width and 0 <= at[1] < height):
        raise UsageError(f"the point {at[0]:g},{at[1]:g} is outside the picture of {width}x{height}")
    scale = min(1.0, MAX_SIDE / max(width, height))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    asked = {
        "model": str(question.model),
        "card": None if question.card is None else str(question.card),
        "method": question.method,
        "class_name": question.class_name,
        "task": question.task,
        "at": None if at is None else [at[0] * image.shape[1] / width, at[1] * image.shape[0] / height],
    }
    png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    return json.dumps(asked).encode() + b"\n" + png


def explain(question: bytes, given_up: threading.Event) -> Answer:
    """Have a picture explained; blocks until it is, which may take a minute.

    Args:
        question: see `write_down`.
        given_up: ends it early, once set.

    Raises:
        NotInstalled: torch is missing.
        UsageError: what is asked for is not there, or the model cannot be explained.
        Busy: cancelled, or it took too long.
    """
    if (lacking := missing()) is not None:
        raise NotInstalled(lacking)
    said, picture = _ask(question, given_up)
    if "error" in said:
        raise UsageError(said["error"])
    return Answer(picture, said["what"], None if said["box"] is None else tuple(said["box"]))


def _ask(question: bytes, given_up: threading.Event) -> tuple[dict[str, Any], bytes]:
    """Start a process and return its answer."""
    command = program(__name__)
    pipe = subprocess.PIPE
    # Not a pipe: communicate() forgets what it has not written yet when its time is over. The file has no name.
    with TemporaryFile() as given:
        given.write(question)
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=pipe, stderr=pipe)
    with process:
        until = time.monotonic() + TIMEOUT_S
        while True:
            try:
                answer, complaints = process.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if given_up.is_set() or time.monotonic() > until:
                    process.kill()
    if given_up.is_set():
        raise Busy("the explanation was cancelled")
    if time.monotonic() > until:
        raise Busy(f"the explanation took longer than {TIMEOUT_S:g} s and was stopped", 30)
    head, _, picture = answer.partition(b"\n")
    if process.returncode or not head:
        log.error("explaining ended with %d: %s", process.returncode, complaints.decode(errors="replace")[-2000:])
        raise Busy("the explanation failed; the server's log says why", 30)
    said: dict[str, Any] = json.loads(head)
    return said, picture


def main() -> None:
    """Answer one question; the entry point of the process."""
    if hasattr(os, "nice"):
        os.nice(10)  # live streams first: they get nine times as much of a core that both want
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # libraries may print; the answer is ours alone
    asked = json.loads(sys.stdin.buffer.readline())
    image = cv2.imdecode(np.frombuffer(sys.stdin.buffer.read(), np.uint8), cv2.IMREAD_COLOR)
    from perception.explain.maps import explain as explain_here

    at = asked.pop("at")
    try:
        made = explain_here(image=np.asarray(image, np.uint8), at=None if at is None else (at[0], at[1]), **asked)
    except PerceptionError as error:
        out.write(json.dumps({"error": error.message}).encode() + b"\n")  # without its path, which is the operator's
        return
    out.write(json.dumps({"what": made.what, "box": made.box}).encode() + b"\n")
    out.write(cv2.imencode(".png", made.picture())[1].tobytes())


if __name__ == "__main__":
    main()
