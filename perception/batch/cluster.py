"""A Ray cluster: its address, and the connection to it. Nothing here imports Ray before it is asked for."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from perception.common.distribution import require
from perception.common.hardware import usable_cores
from perception.errors import PerceptionError, UsageError
from perception.sources.address import hidden

WAIT_S = 10.0
"""Seconds for which the head of a cluster is waited for."""

START_S = 90.0
"""Seconds in which the connection must be there, or a cluster of this machine; it is a dozen processes."""

_PLACE = re.compile(r"(?:ray://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d{1,5})")


def check_cluster(address: str) -> None:
    """Check an address as `connected` takes it, before any work starts.

    Raises:
        UsageError: it is none, or Ray is not installed.
    """
    if address not in ("auto", "local") and _PLACE.fullmatch(address) is None:
        shown = hidden(address) if "://" in address or "@" in address else address
        raise UsageError(
            "a cluster is ray://HOST:10001 from anywhere, HOST:6379 or auto on one of its machines, or local", shown
        )
    require("ray", "ray", "a cluster")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a cluster, which goes on at the end; one that is ``local`` is started here, and ends.

    Nothing is reported to Ray's makers, and no dashboard started. How signals are handled stays as it is.

    Args:
        address: ``ray://HOST:PORT`` of Ray's client server; on a machine of the cluster ``HOST:PORT`` of the head, or
            ``auto``; ``local``: this machine alone.

    Yields:
        the module ``ray``.

    Raises:
        UsageError: Ray is not installed.
        PerceptionError: the head does not answer in time, or has another version of Ray or Python.
    """
    check_cluster(address)
    found = _PLACE.fullmatch(address)
    if found is not None:
        _reach(found["host"].strip("[]"), int(found["port"]), address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}
    variables = {"RAY_USAGE_STATS_ENABLED": "0"}
    if not address.startswith("ray://"):
        options["configure_logging"] = False
    if address == "local":
        options |= {"num_cpus": usable_cores(), "include_dashboard": False}
        variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # as there, nothing listens to other machines
    with _handlers_kept(), _variables(variables):
        import ray

        _quiet(ray)
        failed: list[BaseException] = []

        def begin() -> None:
            try:
                ray.init(address, **options)
            except BaseException as error:
                failed.append(error)

        if address == "local":
            begin()  # in this thread: its processes end with the one that has started them
        else:
            # Ray tries for ever where the head has an address that does not lead there.
            thread = threading.Thread(target=begin, name="perception-cluster", daemon=True)
            thread.start()
            thread.join(START_S)
            if thread.is_alive():
                raise PerceptionError(f"the cluster cannot be used: not ready within {START_S:.0f} s", address)
        if failed:
            with suppress(Exception):
                ray.shutdown()
            if isinstance(failed[0], KeyboardInterrupt):
                raise failed[0]
            raise PerceptionError(f"the cluster cannot be used: {_said(failed[0])}", address) from None
    try:
        yield ray
    finally:
        with _handlers_kept():
            ray.shutdown()


def _quiet(ray: Any) -> None:
    """Let Ray not print twenty lines for each machine that is lost: what becomes of its tasks is told by the batch."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with suppress(AttributeError):
        _ = ray._private.worker.print_to_stdstream  # inside of Ray: where it is not, the lines are printed
        ray._private.worker.print_to_stdstream = lambda *_, **__: None


def _reach(host: str, port: int, address: str) -> None:
    """Check that something listens there: Ray itself would try for minutes."""
    try:
        socket.create_connection((host, port), WAIT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        why = f"does not answer within {WAIT_S:.0f} s" if isinstance(error, TimeoutError) else _said(error)
        raise PerceptionError(f"the head of the cluster cannot be reached: {why}", address) from None


def _said(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text if len(text) <= 400 else f"{text[:400]} ..."


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Leave signals to who has them: Ray ends the process at SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Set variables for Ray, and the processes that it starts; those that are set stay."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
