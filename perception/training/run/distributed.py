"""Several processes that train one network, one for each GPU (torch's DistributedDataParallel)."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: which it is; 0 measures, saves and logs.
        count: how many there are.
        device: what it computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures, saves and logs."""
        return self.rank == 0

    def share(self, network: nn.Module) -> nn.Module:
        """``network`` with gradients averaged over the processes; itself where there is one."""
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def agree(self, value: bool) -> bool:
        """The first process's ``value``, in all of them."""
        if self.count == 1:
            return value
        told = torch.tensor([int(value)], device=self.device)
        torch.distributed.broadcast(told, 0)
        return bool(told.item())

    def leave(self) -> None:
        """Wait for the others and part from them."""
        if self.count > 1:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()


def join_ranks() -> Ranks:
    """One process, or those that ``torchrun --nproc-per-node N -m perception.training CONFIG`` started."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if count > 1:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(rank, count, device)
