"""An encoder that makes itself real-time is brought back into line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perception.sinks.priority import ordinary_priority

linux_root = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir() or os.geteuid() != 0, reason="only root on Linux may become real-time"
)


@linux_root
def test_threads_that_become_real_time_inside_are_ordinary_afterwards() -> None:
    seen: dict[str, int] = {}
    done = threading.Event()

    def other() -> None:
        done.wait()
        seen["other"] = os.sched_getscheduler(0)

    def worker() -> None:
        with ordinary_priority():
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
            thread = threading.Thread(target=other)  # inherits it
            thread.start()
        seen["self"] = os.sched_getscheduler(0)
        done.set()
        thread.join()

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert seen == {"self": os.SCHED_OTHER, "other": os.SCHED_OTHER}


@linux_root
def test_an_av1_video_leaves_no_real_time_thread(tmp_path: Path) -> None:
    script = f"""
import os
import numpy as np
from perception.sinks import open_sink
from perception.types import Frame, Prediction, SourceInfo
sink = open_sink({str(tmp_path / "o.mkv")!r}, codec="av1")
sink.open(SourceInfo("test", "file", 64, 64))
for i in range(3):
    sink.write(Prediction(Frame(np.full((64, 64, 3), 50 * i, np.uint8), index=i, time=i / 25)))
print(sorted({{os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")}}))
sink.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[{os.SCHED_OTHER}]"
