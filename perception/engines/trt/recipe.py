"""All that decides an engine: the prepared graph, the shapes it takes, and what it is built for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from perception.card import ModelCard, load_onnx
from perception.common.precision import parse_precision
from perception.engines.contract import fixed_batch
from perception.engines.trt.flavour import Flavour, lacks_bf16, this_machine
from perception.engines.trt.graph import GraphPrecision, Tail, prepare
from perception.errors import UsageError

MAX_BATCH = 8


@dataclass(frozen=True, slots=True)
class Profile:
    """The shapes that an engine takes: frames uint8 ``[N, H, W, 3]``.

    Attributes:
        batch: most frames a call, 1..8; optimised for that many, accepts fewer.
        least, best, most: (width, height) in pixels; optimised for the second. All equal where the size is fixed.
    """

    batch: int
    least: tuple[int, int]
    best: tuple[int, int]
    most: tuple[int, int]

    @property
    def dynamic(self) -> bool:
        """True where more sizes than one are taken."""
        return self.least != self.most

    def takes(self, size: tuple[int, int]) -> bool:
        """True where frames of a size, (width, height), are taken."""
        return all(a <= n <= b for a, n, b in zip(self.least, size, self.most, strict=True))

    def __str__(self) -> str:
        size = f"{self.best[0]}x{self.best[1]}"
        if self.dynamic:
            size = f"{self.least[0]}x{self.least[1]}..{self.most[0]}x{self.most[1]}, best at {size}"
        return f"{size}, batch 1..{self.batch}" if self.batch > 1 else f"{size}, batch 1"


def make_profile(card: ModelCard, batch: int = 1, size: str | tuple[int, int] | None = None) -> Profile:
    """Choose the shapes for a model.

    Args:
        card: of the model.
        batch: most frames a call, 1..8.
        size: (width, height); ``dynamic`` for everything from half to twice the card's size; None for the card's.

    Raises:
        UsageError: a batch or a size that the model or an engine cannot take.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"batch must be in 1..{MAX_BATCH}, not {batch}")
    own, step = (card.input.width, card.input.height), card.input.multiple
    if size == "dynamic":
        if step is None:
            raise UsageError(f"{card.name} takes {own[0]}x{own[1]} only: its size cannot be dynamic")
        least = tuple(max(side // 2 // step, 1) * step for side in own)
        return Profile(batch, (least[0], least[1]), own, (own[0] * 2, own[1] * 2))
    if isinstance(size, str):
        match = re.fullmatch(r"(\d+)x(\d+)", size)
        if match is None:
            raise UsageError(f"size must be WIDTHxHEIGHT or dynamic, not {size!r}")
        size = (int(match[1]), int(match[2]))
    fixed = size or own
    if fixed != own and (step is None or min(fixed) < 1 or fixed[0] % step or fixed[1] % step):
        allowed = f"multiples of {step}" if step else f"{own[0]}x{own[1]} only"
        raise UsageError(f"{card.name} takes {allowed}, not {fixed[0]}x{fixed[1]}")
    return Profile(batch, fixed, fixed, fixed)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what an engine is: the prepared graph, the shapes, the target.

    Attributes:
        model: name in the card.
        graph: the serialized ONNX graph that the parser is given.
        input_name: name of its input.
        precision: what the products of the network compute in.
        profile: the shapes.
        capabilities: compute capabilities to build for, such as ``("75", "89")``; empty for this machine's GPU.
        flavour: which TensorRT.
    """

    model: str
    graph: bytes
    input_name: str
    precision: GraphPrecision
    profile: Profile
    capabilities: tuple[str, ...]
    flavour: Flavour

    def with_batch(self, batch: int) -> Recipe:
        """Return the recipe for another number of frames a call; the graph does not depend on it."""
        return replace(self, profile=replace(self.profile, batch=batch))

    def key_fields(self) -> dict[str, Any]:
        """Return the fields that identify an engine in the cache; everything in it is plain data."""
        machine = None if self.capabilities else this_machine()
        return {
            "model": self.model,
            "graph": hashlib.sha256(self.graph).hexdigest(),
            "precision": self.precision,
            "profile": str(self.profile),
            "flavour": self.flavour.name,
            "version": self.flavour.version,
            "built with cuda": self.flavour.cuda,
            "capabilities": list(self.capabilities),
            "machine": None if machine is None else asdict(machine),
            "flags": "strongly typed, no TF32",
        }


def make_recipe(
    path: Path,
    card: ModelCard,
    flavour: Flavour,
    precision: GraphPrecision,
    profile: Profile,
    *,
    capabilities: tuple[str, ...] = (),
    tail: Tail | None = None,
) -> Recipe:
    """Prepare a model file for building.

    Raises:
        UsageError: precision, capabilities and graph do not fit together.
        ModelError: the file cannot be read or prepared.
    """
    old = [c for c in capabilities if precision == "bf16" and lacks_bf16(c)]
    if old:
        raise UsageError(f"GPUs of compute capability {', '.join(old)} have no bf16; leave them out, or use fp16")
    model = load_onnx(path)
    batch = fixed_batch(model, card.input.name)
    if batch and profile.batch not in (1, batch):
        raise UsageError(f"this model file has a fixed batch size of {batch}", path)
    size = None if profile.dynamic else profile.best
    graph = prepare(model, card, precision, size=size, tail=tail)
    return Recipe(
        card.name, graph.SerializeToString(), card.input.name, precision, profile, tuple(capabilities), flavour
    )


def graph_precision(name: str) -> GraphPrecision:
    """Choose the precision to build in: ``auto`` is fp16.

    Raises:
        UsageError: an unknown name.
    """
    precision = parse_precision(name)
    return "fp16" if precision == "auto" else precision
