"""Measure the live server as people use it: a real browser with a camera on the page, and viewers of a stream.

The browser's camera plays the street clip; server, browser and viewers share this machine, and so its cores. The engine
alone is measured on the same pictures before the server starts.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import cv2
import numpy as np

from perception.common.distribution import require
from perception.errors import PerceptionError
from perception.model import Model
from perception.sources import open_source

CAMERA_WH = (640, 480)
CAMERA_FPS = 30
CAMERA_FRAMES = 240
STARTUP_S = 90.0
SETTLE_S = 5.0
"""Time to settle after a viewer or a browser has connected, before anything is measured."""

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ENGINE_STAGES = ("resize", "infer", "postprocess")


def live_rows(name: str, model: Model, clip: Path, seconds: float = 15.0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Measure the webcam path in a browser, and a stream with one and four viewers.

    Args:
        name: name or path of the model, for the server.
        model: the same, loaded for latency, to measure the engine alone.
        clip: video that camera and stream play.
        seconds: how long each is measured.

    Yields:
        a title and rows, twice.

    Raises:
        UsageError: an optional dependency is missing.
        PerceptionError: there is no Chromium, or the server does not start.
    """
    for module, extra in (("gradio", "live"), ("playwright", "dev"), ("psutil", "dev")):
        require(module, extra, "bench live")
    with tempfile.TemporaryDirectory(prefix="perception-bench-") as folder:
        camera = Path(folder) / "camera.mjpeg"
        write_camera(clip, camera)
        alone = engine_fps(model, camera, seconds / 3)
        with server([str(clip), "--model", name], Path(folder)) as (url, process):
            yield "webcam in Chromium, 640x480", [_webcam_row(url, camera, seconds, alone)]
            yield "stream, Motion JPEG", _viewer_rows(url, process, seconds)


def write_camera(clip: Path, path: Path) -> None:
    """Write the first frames of a video, cropped to `CAMERA_WH`, as Motion JPEG for Chromium's fake camera."""
    width, height = CAMERA_WH
    with open_source(str(clip), max_frames=CAMERA_FRAMES) as source, av.open(str(path), "w", format="mjpeg") as out:
        stream = out.add_stream("mjpeg", rate=CAMERA_FPS, options={"q": "3"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for i, frame in enumerate(source):
            scale = max(width / frame.width, height / frame.height)
            size = (max(round(frame.width * scale), width), max(round(frame.height * scale), height))
            whole = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
            left, top = (size[0] - width) // 2, (size[1] - height) // 2
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(whole[top : top + height, left : left + width], np.uint8), "bgr24"
            ).reformat(format="yuvj420p")
            picture.pts, picture.time_base = i, Fraction(1, CAMERA_FPS)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def engine_fps(model: Model, camera: Path, seconds: float) -> float:
    """Predictions a second, one after the other, of a few of the camera's pictures at their own size."""
    with av.open(str(camera)) as container:
        decoded = islice(container.decode(video=0), 30)
        images = [np.asarray(picture.to_ndarray(format="bgr24"), np.uint8) for picture in decoded]
    model.warmup(*CAMERA_WH)
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        model.predict(images[count % len(images)])
        count += 1
    return count / elapsed


@contextmanager
def server(arguments: Sequence[str], folder: Path) -> Iterator[tuple[str, Any]]:
    """`perception live` in a process of its own; gives its URL and the process, as psutil sees it.

    Raises:
        PerceptionError: it does not start.
    """
    import psutil

    command = [sys.executable, "-m", "perception", "live", *arguments, "--port", "0", "--no-browser"]
    command += ["--data-dir", str(folder / "data")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "http" not in line:
            said = (folder / "server.log").read_text(errors="replace").strip()
            raise PerceptionError(f"the live server did not start: {said or line}")
        url = line[line.index("http") :].strip()
        _wait_until_ready(url)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            if ask(url, "GET", "/readyz")[0] == 200:
                return
        time.sleep(0.2)
    raise PerceptionError(f"the live server was not ready within {STARTUP_S:.0f} s", url)


def ask(url: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Send a request to a server; the status and the JSON of its answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def find_chromium() -> str:
    """Find a Chromium: the environment's ``CHROMIUM``, or the first on the path.

    Raises:
        PerceptionError: there is none.
    """
    for found in (os.environ.get("CHROMIUM"), *map(shutil.which, _CHROMIUM)):
        if found:
            return found
    raise PerceptionError("bench live needs Chromium: install it, or set CHROMIUM to its path")


def _webcam_row(url: str, camera: Path, seconds: float, alone: float) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={camera}",
            ],
        )
        try:
            context = browser.new_context(viewport={"width": 1280, "height": 800}, permissions=["camera"])
            page = context.new_page()
            page.goto(url, wait_until="domcontentloaded")
            page.wait_for_function("() => window.perception?.live", timeout=1000 * STARTUP_S)
            page.evaluate(
                "() => { window.perception.settings.source = 'webcam'; return window.perception.live.start(); }"
            )
            page.wait_for_function("() => window.perception.live.statistics.total > 5", timeout=1000 * STARTUP_S)
            page.wait_for_timeout(1000 * SETTLE_S)
            page.evaluate("() => window.perception.live.statistics.clear()")
            page.wait_for_timeout(1000 * min(seconds, 55))
            results = page.evaluate("() => window.perception.live.statistics.results")
        finally:
            browser.close()
    if len(results) < 2:
        raise PerceptionError("the browser got no results from the live server", url)
    fps = 1000 * (len(results) - 1) / (results[-1]["at"] - results[0]["at"])
    latency = np.array([r["latency"] for r in results])
    overhead = latency - [sum(r[stage] for stage in _ENGINE_STAGES) for r in results]
    # No more can come than the camera gives.
    possible = min(alone, CAMERA_FPS)
    return {
        "results_fps": round(fps, 1),
        "engine_alone_fps": round(alone, 1),
        "part_percent": round(100 * fps / possible),
        "round_trip_ms": round(float(np.median(latency)), 1),
        "without_engine_ms": round(float(np.median(overhead)), 1),
        "without_engine_p95_ms": round(float(np.percentile(overhead, 95)), 1),
    }


def _viewer_rows(url: str, process: Any, seconds: float) -> list[dict[str, Any]]:
    """Measure the slowest viewer's frame rate and the server's processor time, with one and with four viewers."""
    _, sources = ask(url, "GET", "/v1/streams")
    status, stream = ask(url, "POST", "/v1/streams", {"source": sources["sources"][0]})
    if status >= 300:
        raise PerceptionError(f"the stream cannot be opened: {stream}", url)
    rows: list[dict[str, Any]] = []
    for viewers in (1, 4):
        ended = threading.Event()
        counts = [0] * viewers
        threads = [
            threading.Thread(target=_watch, args=(url, stream["id"], counts, i, ended), daemon=True)
            for i in range(viewers)
        ]
        for thread in threads:
            thread.start()
        time.sleep(SETTLE_S)
        before, cpu_before, started = list(counts), sum(process.cpu_times()[:2]), time.perf_counter()
        time.sleep(seconds)
        elapsed = time.perf_counter() - started
        cpu = (sum(process.cpu_times()[:2]) - cpu_before) / elapsed
        got = [(after - first) / elapsed for after, first in zip(counts, before, strict=True)]
        ended.set()
        for thread in threads:
            thread.join(10)
        rows.append({"viewers": viewers, "slowest_fps": round(min(got), 1), "server_cores": round(cpu, 2)})
    one, four = rows
    four["percent_of_a_core_per_extra_viewer"] = round(100 * (four["server_cores"] - one["server_cores"]) / 3, 1)
    return rows


def _watch(url: str, stream: str, counts: list[int], index: int, ended: threading.Event) -> None:
    """Count the pictures that one viewer gets."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", f"/v1/streams/{stream}/mjpeg")
        answer = connection.getresponse()
        while not ended.is_set():
            line = answer.readline()
            if not line:
                break
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
                answer.readline()
                answer.read(length)
                counts[index] += 1
    connection.close()
