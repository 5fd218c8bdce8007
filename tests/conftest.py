"""What holds for all tests."""

import signal

import pytest

from tests.fixtures import main_here, own_cache_home  # noqa: F401

# A shell ignores Ctrl-C on behalf of what it starts in the background, and so would everything the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONG_FIRST = (
    "tests/test_gpu.py",
    "tests/sources/test_rtsp_clocks.py",
    "tests/browser/",
    "tests/test_demos.py",
    "tests/server/",
)
"""Files that take long are begun first, so that no process is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that take long first; the order within a file stays."""

    def place(item: pytest.Item) -> int:
        return next((i for i, start in enumerate(LONG_FIRST) if item.nodeid.startswith(start)), len(LONG_FIRST))

    items.sort(key=place)
