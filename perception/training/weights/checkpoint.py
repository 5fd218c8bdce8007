"""Checkpoints: everything a run needs to go on bit for bit, in one file of plain tensors and numbers."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perception.errors import ModelError, SinkError

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that ``path`` is always whole: beside it first, then renamed over it.

    Raises:
        SinkError: It cannot be written; what was there before still is.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch has an error of its own for a full disk
        reason = getattr(error, "strerror", None) or "torch could not write all of it; is the disk full?"
        raise SinkError(f"cannot write the checkpoint ({reason}); what was saved before is untouched", path) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state in ``path``; nothing but tensors and plain values is ever unpickled.

    Raises:
        ModelError: The file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise ModelError("no such checkpoint", path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's message advises to unpickle it all the same, which runs what is in it
        raise ModelError("not a checkpoint, or one with more in it than tensors and plain values", path) from None
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"cannot read this checkpoint: {reason}", path) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ModelError("not a checkpoint of this package, or of another version of it", path)
    return state


def load_weights(network: nn.Module, weights: dict[str, Any], where: Path) -> None:
    """Load ``weights`` into ``network``.

    Raises:
        ModelError: The architectures differ; the message names the tensors that do.
    """
    ours = network.state_dict()
    missing = sorted(ours.keys() - weights.keys())
    unknown = sorted(weights.keys() - ours.keys())
    shapes = [
        f"{k} is {list(weights[k].shape)}, expected {list(ours[k].shape)}"
        for k in sorted(ours.keys() & weights.keys())
        if weights[k].shape != ours[k].shape
    ]
    faults = [
        f"{title} {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for title, names in (("lacks", missing), ("has unknown", unknown), ("wrong shapes:", shapes))
        if names
    ]
    if faults:
        raise ModelError(f"weights of another network: {'; '.join(faults)}", where)
    network.load_state_dict(weights)
