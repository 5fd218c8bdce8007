"""Several processes that train one network, one for each GPU (torch's DistributedDataParallel)."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Distributed:
    """One process among those that train together.

    Attributes:
        rank: number of this process; 0 measures, saves and logs.
        world_size: number of processes.
        device: of this process.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True for the process that measures, saves and logs."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return ``network`` with gradients averaged over the processes; itself where there is one."""
        if self.world_size == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def broadcast(self, value: bool) -> bool:
        """Return the first process's ``value``, in all of them."""
        if self.world_size == 1:
            return value
        told = torch.tensor([int(value)], device=self.device)
        torch.distributed.broadcast(told, 0)
        return bool(told.item())

    def close(self) -> None:
        """Wait for the others and leave the group."""
        if self.world_size > 1:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()


def init_distributed() -> Distributed:
    """Join the processes that ``torchrun --nproc-per-node N -m perception train CONFIG`` started; else there is one."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Distributed(rank, world_size, device)
