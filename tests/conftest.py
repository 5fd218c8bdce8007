"""What holds for all tests."""

import gc
import signal
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import pytest

from tests.fixtures import main_here, own_cache_home  # noqa: F401
from tests.scheduling import in_order, scope_of

# A shell ignores Ctrl-C on behalf of what it starts in the background, and so would everything the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Thousands of clients ask servers of this machine, few of them by TLS: one list of authorities does for all.
httpx._transports.default.create_ssl_context = cache(httpx.create_ssl_context)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported stays: the garbage collector looks no more at it, which took it half a second each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files in an order that suits several processes; the order within a file stays."""
    place = {file: i for i, file in enumerate(in_order(dict.fromkeys(map(file_of, items))))}
    items.sort(key=lambda item: place[file_of(item)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``, let some files go together."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Scheduling(config, log)


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
