"""A narrower network from a trained one: drop the channels that the rest can stand in for.

Inside a block, channels are made, filtered one by one, and read by a 1x1 convolution. Which of them go is decided by
Optimal Brain Surgeon (Hassibi & Stork, "Second order derivatives for network pruning", NIPS 1992), one at a time: the
one whose loss changes least what the convolution gives out, once its other weights have made up for it as well as they
can (least squares over the pictures). What is left is where training goes on from.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perception.networks.detector import DetectionHead
from perception.networks.lite import InvertedResidual

log = logging.getLogger(__name__)

RIDGE = 1e-4  # of the mean variance: channels that are nearly sums of others give no wild weights


class _Reader(NamedTuple):
    """A 1x1 convolution that reads a group of channels.

    Attributes:
        name: of the convolution.
        norms: names of the batch norms behind it, one for each call in turn; none where it has a bias.
    """

    name: str
    norms: tuple[str, ...]


class _Group(NamedTuple):
    """Channels that can only go together.

    Attributes:
        makers: names of the convolutions and norms that have a row for each of the channels.
        readers: what takes them.
    """

    makers: tuple[str, ...]
    readers: tuple[_Reader, ...]


class _Moments(NamedTuple):
    """Moments of what a reader takes: mean of each call ``[calls, C]``, covariance around them ``[C, C]``; float64."""

    means: Tensor
    covariance: Tensor


def is_narrower(narrow: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Return whether ``narrow`` lacks nothing but channels that `prune` can drop from the network of ``weights``."""
    ours = narrow.state_dict()
    if ours.keys() != weights.keys():
        return False
    groups = _groups(narrow)
    makers = {maker for group in groups for maker in group.makers}
    readers = {reader.name for group in groups for reader in group.readers}
    differing = {name for name, ours_ in ours.items() if ours_.shape != weights[name].shape}
    return bool(differing) and all(
        name.rpartition(".")[0] in makers | readers
        and all(a <= b for a, b in zip(ours[name].shape, weights[name].shape, strict=True))
        for name in differing
    )


def prune(wide: nn.Module, narrow: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give ``narrow`` the weights of ``wide``, where it has fewer channels inside its blocks.

    Blocks that may differ are those of `perception.networks.lite.EfficientNetLite` and of
    `perception.networks.detector.DetectionHead`; all else must agree.

    Args:
        wide: trained.
        narrow: of the same layers; see `is_narrower`.
        batches: pictures, float ``[N, 3, H, W]``, normalised, where ``wide`` is: a few hundred places of each
            layer's map are wanted for each of its channels.
    """
    state = {name: tensor.cpu().clone() for name, tensor in wide.state_dict().items()}
    shapes = {name: tensor.shape for name, tensor in narrow.state_dict().items()}
    groups = [
        (group, wanted)
        for group in _groups(wide)
        if (wanted := shapes[f"{group.readers[0].name}.weight"][1]) < _channels(state, group)
    ]
    moments = _measure(wide, [reader for group, _ in groups for reader in group.readers], batches)
    # From the last to the first: rows that later groups drop need no standing in for.
    for group, wanted in reversed(groups):
        seen = [moments[reader.name] for reader in group.readers]
        before = [state[f"{reader.name}.weight"].double().flatten(1) for reader in group.readers]
        kept, after = keep(before, [m.covariance for m in seen], wanted)
        for reader, old, new, (means, _) in zip(group.readers, before, after, seen, strict=True):
            state[f"{reader.name}.weight"] = new.float()[:, :, None, None]
            lost = means @ old.T - means[:, kept] @ new.T  # of the mean that it gave out, by call
            for norm, part in zip(reader.norms, lost, strict=False):
                state[f"{norm}.running_mean"] -= part.float()
            if not reader.norms:
                state[f"{reader.name}.bias"] += lost.mean(0).float()
        for maker in group.makers:
            for name in [name for name in state if name.rpartition(".")[0] == maker and state[name].ndim]:
                state[name] = state[name][kept]
        log.info("%s: %d of %d channels", group.readers[0].name, wanted, before[0].shape[1])
    narrow.load_state_dict(state)


def keep(weights: Sequence[Tensor], covariances: Sequence[Tensor], wanted: int) -> tuple[Tensor, list[Tensor]]:
    """Choose channels, and the weights of those that read them.

    Each reader's error counts relative to the variance of what it gives out.

    Args:
        weights: of each reader, float64 ``[O, C]``.
        covariances: of what each reads, float64 ``[C, C]``.
        wanted: how many channels to keep.

    Returns:
        int64 ``[wanted]``: the kept channels, rising; and the weights ``[O, wanted]`` of each reader: those that come
        closest to what it gave out, in the mean of squares, up to a constant.
    """
    channels = covariances[0].shape[0]
    alive = torch.ones(channels, dtype=torch.bool)
    now = [w.clone() for w in weights]
    inverses, scales = [], []
    for weight, covariance in zip(weights, covariances, strict=True):
        ridge = (RIDGE * covariance.diagonal().mean()).clamp(min=1e-12)
        inverses.append(torch.linalg.inv(covariance + ridge * torch.eye(channels, dtype=torch.float64)))
        scales.append(((weight @ covariance) * weight).sum().clamp(min=1e-12))
    for _ in range(channels - wanted):
        cost = torch.zeros(channels, dtype=torch.float64)
        for weight, inverse, scale in zip(now, inverses, scales, strict=True):
            cost += weight.square().sum(0) / inverse.diagonal().clamp(min=1e-30) / scale
        gone = int(torch.where(alive, cost, torch.inf).argmin())
        alive[gone] = False
        for weight, inverse in zip(now, inverses, strict=True):
            row = inverse[gone] / inverse[gone, gone]
            weight -= torch.outer(weight[:, gone], row)
            inverse -= torch.outer(inverse[:, gone], row)
            weight[:, gone] = 0
            inverse[gone] = inverse[:, gone] = 0
    kept = alive.nonzero().squeeze(1)
    return kept, [weight[:, kept] for weight in now]


def _channels(state: dict[str, Tensor], group: _Group) -> int:
    return state[f"{group.readers[0].name}.weight"].shape[1]


def _groups(network: nn.Module) -> list[_Group]:
    """In the order in which the network computes."""
    groups = []
    for name, module in network.named_modules():
        if isinstance(module, InvertedResidual) and len(module.layers) == 3:
            makers = tuple(f"{name}.layers.{layer}" for layer in ("0.0", "0.1", "1.0", "1.1"))
            groups.append(_Group(makers, (_Reader(f"{name}.layers.2.0", (f"{name}.layers.2.1",)),)))
        elif isinstance(module, DetectionHead):
            groups += _head_groups(name, module)
    return groups


def _head_groups(name: str, head: DetectionHead) -> list[_Group]:
    """Both towers read what ``reduce`` makes; each block makes what the next one, or the last layer, reads."""
    levels = range(len(head.strides))
    towers = {"class_tower": "classify", "box_tower": "measure"}
    depth = len(head.class_tower.mixes)

    def filtered(tower: str, block: int) -> tuple[str, ...]:
        norms = (f"{name}.{tower}.filter_norms.{block}.{level}" for level in levels)
        return (f"{name}.{tower}.filters.{block}", *norms)

    def reader(tower: str, block: int) -> _Reader:
        if block == depth:
            return _Reader(f"{name}.{towers[tower]}", ())
        norms = tuple(f"{name}.{tower}.mix_norms.{block}.{level}" for level in levels)
        return _Reader(f"{name}.{tower}.mixes.{block}", norms)

    makers = [f"{name}.reduce.{level}.{layer}" for level in levels for layer in (0, 1)]
    if depth:
        makers += [maker for tower in towers for maker in filtered(tower, 0)]
    groups = [_Group(tuple(makers), tuple(reader(tower, 0) for tower in towers))]
    for block in range(1, depth + 1):
        for tower in towers:
            made = reader(tower, block - 1)
            behind = filtered(tower, block) if block < depth else ()
            groups.append(_Group((made.name, *made.norms, *behind), (reader(tower, block),)))
    return groups


def _measure(network: nn.Module, readers: Sequence[_Reader], batches: Iterable[Tensor]) -> dict[str, _Moments]:
    """Moments of what each reader takes."""
    names = {network.get_submodule(reader.name): reader.name for reader in readers}
    sums: dict[tuple[str, int], list[Tensor]] = {}
    turns: Counter[str] = Counter()

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        name = names[module]
        x = args[0].transpose(0, 1).flatten(1).double()
        parts = [torch.tensor(float(x.shape[1])), x.sum(1).cpu(), (x @ x.T).cpu()]
        before = sums.get((name, turns[name]))
        sums[name, turns[name]] = parts if before is None else [a + b for a, b in zip(before, parts, strict=True)]
        turns[name] += 1

    hooks = [module.register_forward_pre_hook(look) for module in names]
    try:
        with torch.inference_mode():
            for images in batches:
                turns.clear()
                network.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    moments = {}
    for name in names.values():
        calls = [sums[key] for key in sorted(key for key in sums if key[0] == name)]
        means = torch.stack([total / count for count, total, _ in calls])
        inside = [products - count * torch.outer(m, m) for (count, _, products), m in zip(calls, means, strict=True)]
        moments[name] = _Moments(means, sum(inside, torch.zeros(())) / sum(float(count) for count, _, _ in calls))
    return moments
