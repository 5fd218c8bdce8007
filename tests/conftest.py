"""What holds for all tests."""

import signal

import pytest

from tests.fixtures import main_here, own_cache_home  # noqa: F401

# A shell ignores Ctrl-C on behalf of what it starts in the background, and so would everything the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("tests/test_gpu.py", "tests/sources/test_rtsp_clocks.py", "tests/test_demos.py", "tests/batches/")
"""Files that take long are begun first, so that no process is left alone with one at the end."""

BROWSER = "tests/browser/"
"""Files of which each keeps a core busy: spread over the first two thirds of the others, not side by side."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files in an order that suits several processes; the order within a file stays."""
    files = list(dict.fromkeys(item.nodeid.partition("::")[0] for item in items))
    pages = [file for file in files if file.startswith(BROWSER)]
    others = sorted((file for file in files if file not in pages), key=lambda file: not file.startswith(LONG))
    step = 2 * len(others) / (3 * max(len(pages), 1))
    place: dict[str, float] = {file: i for i, file in enumerate(others)}
    place |= {file: i * step + 0.5 for i, file in enumerate(pages)}
    items.sort(key=lambda item: place[item.nodeid.partition("::")[0]])
