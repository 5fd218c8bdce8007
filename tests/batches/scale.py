"""Measure what a batch on many machines costs besides the work: the terms of docs/scale.md.

python -m tests.batches.scale
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from perception.annotate import Annotation, Outputs
from perception.annotate.result import Result
from perception.batch.cluster import connected
from perception.batch.cluster_pool import ClusterPool
from perception.batch.drafts import Drafts
from perception.batch.manifest import Entry, Manifest
from perception.batch.task import Task
from tests.batches.nodes import Nodes, nodes
from tests.fixtures import make_cache_home
from tests.media import make_video
from tests.models import write_model

TASKS = 200
MODEL_BYTES = 64 << 20


def measured(do: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def ray_terms(cluster: Nodes) -> dict[str, float]:
    """Of Ray alone: an empty task, and a file sent to a machine."""
    with connected(cluster.address) as ray:

        def nothing(sent: bytes) -> int:
            return len(sent)

        def fetch(parts: list[Any]) -> float:
            import time

            import ray

            began = time.perf_counter()
            ray.get(parts[0])
            return time.perf_counter() - began

        remote = ray.remote(nothing).options(num_cpus=2)
        ray.get(remote.remote(b""))  # its process is there from here on
        single = [measured(lambda: ray.get(remote.remote(bytes(4096)))) for _ in range(TASKS)]
        many = measured(lambda: ray.get([remote.remote(bytes(4096)) for _ in range(TASKS)]))
        content = ray.put(np.ones(MODEL_BYTES, np.uint8))
        seconds = ray.get(ray.remote(fetch).options(num_cpus=2).remote([content]))
    return {
        "an empty task, there and back (ms)": statistics.median(single) * 1e3,
        "empty tasks given out at once, each (ms)": many / TASKS * 1e3,
        "a model sent to a machine (MB/s)": MODEL_BYTES / 1e6 / seconds,
    }


def pool_terms(cluster: Nodes, folder: Path) -> dict[str, float]:
    """Of tasks as they are: one frame each, the first in a new process."""
    model = write_model(folder / "m.onnx", detection=True)
    clip = make_video(folder / "clip.mp4", frames=1)
    places = folder / "out" / ".perception-batch"
    places.mkdir(parents=True)
    annotation = Annotation(model=str(model), precision="fp32", engine="openvino", threads=2)
    tasks = [
        Task(i, str(clip), False, None, {"jsonl": str(places / str(i) / "jsonl" / "clip.jsonl")}, {"jsonl": "x"})
        for i in range(1, 31)
    ]
    times = [time.perf_counter()]
    for _, outcome in ClusterPool(cluster.address, annotation, 1, places).run(tasks):
        assert outcome.error is None, outcome.error
        times.append(time.perf_counter())
    steps = np.diff(times)
    return {
        "the first task: connection, process, imports, model (s)": float(steps[0]),
        "a task of one frame of 80x48 after it (ms)": float(np.median(steps[1:])) * 1e3,
    }


def publishing_terms(folder: Path) -> dict[str, float]:
    """Of the parent: two files get their names, and the manifest two lines."""
    out = folder / "published"
    out.mkdir()
    drafts, manifest = Drafts(Outputs(video=f"{out}/", jsonl=f"{out}/")), Manifest(out)
    manifest.put_settings("s", {})
    seconds = []
    for i in range(1, TASKS + 1):
        made = {"video": f"{out}/{i}.mp4", "jsonl": f"{out}/{i}.jsonl"}
        result = Result(f"{i}.mp4", made, number=i)
        places = drafts.places(result)
        for path in places.values():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(bytes(1000))
        entry = Entry(f"{i}.mp4", str(i), "publishing", [1, 2], made, "s")

        def published(result: Result = result, places: dict[str, str] = places, entry: Entry = entry) -> None:
            manifest.put(entry)
            drafts.check(result, places, set())
            drafts.publish(result, places, set())
            manifest.put(entry)

        seconds.append(measured(published))
    manifest.close()
    drafts.close()
    return {"publishing a source with two outputs, on a local disk (ms)": statistics.median(seconds) * 1e3}


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rows = publishing_terms(folder)
        with nodes(1, make_cache_home(folder)) as cluster:
            rows |= ray_terms(cluster)
            rows |= pool_terms(cluster, folder)
    print("| term | measured |\n|---|---:|")
    for name, value in rows.items():
        print(f"| {name} | {value:.3g} |")


if __name__ == "__main__":
    main()
