"""Two networks of their own, and a wire between them that loses, delays, and can be cut: for root.

The kernel's ``tc netem`` would do; it is often not built in, so packets take a way through this process instead: each
network has a TUN device, and what comes out of one is put into the other.

    with Wire() as wire:
        subprocess.run([*wire.prefix(0), ...])      # has the address wire.address(0)
        wire.set(loss=0.05, delay_s=0.1)
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections import Counter
from types import TracebackType

from tests.faults.row import NotHere

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
WAITING = 2000
"""Packets under way at most; beyond it they are lost, as in the queue of a router."""


class Wire:
    """See the module; a context manager.

    Args:
        seed: of what is lost.

    Attributes:
        counts: packets carried and lost.

    Raises:
        NotHere: the system does not allow it.
    """

    def __init__(self, seed: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._loss = self._delay_s = self._jitter_s = 0.0
        self._cut = False
        self._names = [f"faults-{os.getpid()}-{end}" for end in "ab"]
        self._devices: list[int] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def set(self, loss: float = 0.0, delay_s: float = 0.0, jitter_s: float = 0.0, cut: bool = False) -> None:
        """Change what happens to packets, each way: the part that is lost, and how long each takes."""
        self._loss, self._delay_s, self._jitter_s, self._cut = loss, delay_s, jitter_s, cut

    def address(self, end: int) -> str:
        """Of an end: 0 or 1."""
        return f"10.213.97.{end + 1}"

    def prefix(self, end: int) -> list[str]:
        """Words before a command that runs in the network of an end."""
        return ["ip", "netns", "exec", self._names[end]]

    def __enter__(self) -> Wire:
        try:
            for end, name in enumerate(self._names):
                _ip("netns", "add", name)
                device = f"faults{os.getpid() % 10000}{'ab'[end]}"
                self._devices.append(_open_tun(device))
                _ip("link", "set", device, "netns", name)
                _ip("-n", name, "link", "set", "lo", "up")
                peer = self.address(1 - end)
                _ip("-n", name, "address", "add", self.address(end), "peer", peer, "dev", device)
                _ip("-n", name, "link", "set", device, "up")
        except BaseException:
            self._close()
            raise
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(10)
        for device in self._devices:
            os.close(device)
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def _carry(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        number = 0
        while not self._ended.is_set():
            pause = min(0.05, max(0.0, waiting[0][0] - time.monotonic())) if waiting else 0.05
            for device in select.select(self._devices, [], [], pause)[0]:
                packet = os.read(device, 65536)
                if self._cut or self._random.random() < self._loss or len(waiting) >= WAITING:
                    self.counts["lost"] += 1
                    continue
                self.counts["carried"] += 1
                due = time.monotonic() + self._delay_s + self._random.uniform(0, self._jitter_s)
                number += 1
                heapq.heappush(waiting, (due, number, self._devices[1 - self._devices.index(device)], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(waiting)
                try:
                    os.write(device, packet)
                except OSError:
                    self.counts["lost"] += 1


def _open_tun(name: str) -> int:
    try:
        device = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as error:
        raise NotHere(f"/dev/net/tun: {error.strerror}") from None
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(device)
        raise NotHere(f"a TUN device: {error.strerror}") from None
    return device


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    except OSError as error:
        raise NotHere(f"ip: {error}") from None
    if done.returncode:
        raise NotHere(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
