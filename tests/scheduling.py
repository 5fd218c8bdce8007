"""In which order the files of tests are run, and which of them by the same process."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

LONG = (
    "tests/test_gpu.py", "tests/batches/test_cluster.py", "tests/sources/test_rtsp_clocks.py",
    "tests/engines/test_trt_build.py", "tests/sources/test_thinner.py", "tests/batches/",
    "tests/publishing/test_publish.py", "tests/server/test_shares.py", "tests/server/test_tarpit.py",
    "tests/training/", "tests/server/test_gradio.py", "tests/server/test_headers.py", "tests/test_demos.py",
    "tests/test_site.py", "tests/test_cli.py",
)  # fmt: skip
"""Files that take long are begun first, in this order, so that no process is left alone with one at the end."""

BROWSER = "tests/browser/"
PAGES = sorted(f"{BROWSER}{path.name}" for path in (Path(__file__).parent / "browser").glob("test_*.py"))
"""Files that share a browser and a server, which take seconds to start, and that each keep a core busy. So a process
takes several of them, one after the other; and these parts are spread over the others, not side by side."""
PARTS = 4


def in_order(files: Collection[str]) -> list[str]:
    """Put files in an order that suits several processes."""
    there = set(files)
    others = sorted((file for file in files if file not in PAGES), key=_place)
    step = len(others) // (2 * PARTS)  # over the first half, which has the long ones
    made: list[str] = []
    for part in range(PARTS):
        made += [file for file in PAGES[part::PARTS] if file in there]
        made += others[part * step : (part + 1) * step]
    return made + others[PARTS * step :]


def scope_of(nodeid: str) -> str:
    """What runs in one process, one after the other: the tests of a file, or of a part of the files with a browser."""
    file = nodeid.partition("::")[0]
    return f"{BROWSER}{PAGES.index(file) % PARTS}" if file in PAGES else file


def _place(file: str) -> int:
    return next((number for number, start in enumerate(LONG) if file.startswith(start)), len(LONG))
