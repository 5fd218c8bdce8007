"""The summary of a network as a table of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from perception.networks.arithmetic import Field

Fields = tuple[Field, Field] | None
"""Receptive fields along height and width; None where every output sees the whole image."""


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: as in the network.
        kind: of module, with kernel and stride where it has them.
        output: shape of what it gives for one image, without the batch.
        parameters: weights and biases.
        multiplications: for one image; those of convolutions and dense layers, which are nearly all.
        field: receptive field of one output in pixels (height, width); None behind what looks at the whole image.
        step: pixels between the fields of neighbouring outputs (height, width).
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiplications: int
    field: tuple[int, int] | None
    step: tuple[int, int] | None


@dataclass(frozen=True)
class Summary:
    """Layers and sums of a network.

    Attributes:
        name: of the network.
        input: (C, H, W) of the image.
        layers: in the order of their execution.
        parameters: of the whole network, each counted once.
    """

    name: str
    input: tuple[int, int, int]
    layers: list[Layer]
    parameters: int
    multiplications: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "multiplications", sum(layer.multiplications for layer in self.layers))

    def rows(self) -> list[dict[str, Any]]:
        """Make a table, one row a layer and one for all."""
        rows = []
        for layer in self.layers:
            row = asdict(layer)
            row["output"] = "x".join(map(str, layer.output))
            row["field"] = "all" if layer.field is None else "x".join(map(str, layer.field))
            row["step"] = "" if layer.step is None else "x".join(map(str, layer.step))
            rows.append(row)
        whole = {"name": "all", "kind": "", "output": "", "field": "", "step": ""}
        return [*rows, {**whole, "parameters": self.parameters, "multiplications": self.multiplications}]


def joined(fields: Iterable[Fields]) -> Fields:
    """Join receptive fields: None where one of them is the whole image."""
    several = list(fields)
    if any(f is None for f in several):
        return None
    known = [f for f in several if f is not None]
    return Field.joined(f[0] for f in known), Field.joined(f[1] for f in known)
