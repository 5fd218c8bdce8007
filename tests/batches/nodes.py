"""A Ray cluster on this machine: a head, and machines of a few processes each, which tests may kill."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.batches.running import until
from tests.events.receivers import free_port

ROOT = Path(__file__).parent.parent.parent


class Nodes:
    """The cluster. Its head does no tasks.

    Attributes:
        address: for a driver on one of its machines.
        client: for one anywhere.
    """

    def __init__(self, cluster: Any, port: int) -> None:
        self._cluster = cluster
        self.address = str(cluster.address)
        self.client = f"ray://127.0.0.1:{port}"
        self.machines: list[Any] = []
        self._seen: set[psutil.Process] = set()

    def add(self) -> None:
        """Add a machine with room for one task."""
        options = {"num_cpus": 2, "object_store_memory": 100 << 20, "node_ip_address": "127.0.0.1"}
        self.machines.append(started(lambda: self._cluster.add_node(**options)))
        self.processes()

    def processes(self) -> set[psutil.Process]:
        """All processes of the cluster that there are, and were when this was asked before."""
        for node in (self._cluster.head_node, *self.machines):
            self._seen |= processes_of(node)
        return self._seen

    def kill(self, index: int) -> None:
        """End all processes of a machine at once, as a machine that loses its power."""
        node = self.machines.pop(index)
        found = processes_of(node)
        self._seen |= found
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        for started in node.all_processes.values():
            for info in started:
                info.process.wait()
        until(lambda: not any(_runs(process) for process in found))

    def tasks(self) -> list[psutil.Process]:
        """Processes that do, or did, tasks of a batch."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                title = "".join(process.cmdline()[:1])  # none while it begins or ends
                if _runs(process) and title.startswith("ray::perception"):
                    found.append(process)
        return found


def started(make: Callable[[], Any]) -> Any:
    """Start processes of Ray, again where it did not wait long enough for them: it gives a busy machine 30 seconds."""
    for last in (*[False] * 5, True):
        before = set(psutil.Process().children(recursive=True))
        try:
            return make()
        except Exception:
            for process in set(psutil.Process().children(recursive=True)) - before:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if last:
                raise
    return None


def processes_of(node: Any) -> set[psutil.Process]:
    """The processes of a machine, those of its workers too."""
    found = set()
    for started in node.all_processes.values():
        for info in started:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(info.process.pid)
                found |= {process, *process.children(recursive=True)}
    return found


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def nodes(count: int, cache: Path) -> Iterator[Nodes]:
    """Start a cluster; at the end none of its processes is left.

    Args:
        count: of machines besides the head.
        cache: the folder of caches of its machines.
    """
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there: 127.0.0.1 stays, and is all that is listened at
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in variables}
    folder = tempfile.mkdtemp(prefix="ray")  # short: paths of sockets have a limit
    os.environ.update(variables)
    try:
        import ray
        from ray._private import ray_constants
        from ray.cluster_utils import Cluster

        ray_constants.ENABLE_RAY_CLUSTER = False  # the same in this process, which may have imported it before
        port = free_port()
        head = {
            "num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1", "temp_dir": folder,
            "object_store_memory": 100 << 20, "ray_client_server_port": port,
        }  # fmt: skip
        cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head))
        made = Nodes(cluster, port)
        try:
            for _ in range(count):
                made.add()
            yield made
        finally:
            left = made.processes()
            ray.shutdown()
            cluster.shutdown()
            with suppress(AssertionError):
                until(lambda: not any(_runs(process) for process in left), longest_s=20)
            still = [process for process in left if _runs(process)]
            for process in still:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            assert not still, still
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)
