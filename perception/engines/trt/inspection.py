"""A built network: types, shapes and layers of a network, looked at before it is trusted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from perception.common.text import counted
from perception.errors import EngineError

_TYPES = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "INT8"}
_PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: name, type as TensorRT calls it, shape with -1 for what is free."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.lower()} [{', '.join('?' if n < 0 else str(n) for n in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Inspection:
    """A network as it was built.

    Attributes:
        inputs, outputs: the tensors that cross the border.
        layers: number of layers of the network.
        products: number of convolutions and matrix products by the type that they compute in.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: int
    products: dict[str, int]

    @classmethod
    def from_data(cls, data: Any) -> Inspection:
        """From plain data, as `dataclasses.asdict` makes it and JSON gives it back.

        Raises:
            EngineError: the data are of something else.
        """
        try:
            sides = [
                tuple(Tensor(str(t["name"]), str(t["dtype"]), tuple(map(int, t["shape"]))) for t in data[side])
                for side in ("inputs", "outputs")
            ]
            return cls(sides[0], sides[1], int(data["layers"]), dict(data["products"]))
        except (KeyError, TypeError, ValueError):
            raise EngineError("the engine cache is damaged; run `perception cache clear`") from None

    def __str__(self) -> str:
        spelled = {name: precision for precision, name in _TYPES.items()}
        products = ", ".join(f"{n} in {spelled.get(dtype, dtype.lower())}" for dtype, n in self.products.items())
        tensors = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        return f"{tensors[0]} -> {tensors[1]}; {counted(self.layers, 'layer')}, products: {products or 'none'}"


def inspect_network(network: Any, trt: Any) -> Inspection:
    """Inspect a parsed network."""
    products: Counter[str] = Counter()
    dequantised = set()
    for index in range(network.num_layers):  # in topological order
        layer = network.get_layer(index)
        if layer.type.name == "DEQUANTIZE":
            dequantised.add(layer.get_output(0).name)
        elif layer.type.name in _PRODUCTS:
            source = layer.get_input(0)
            # what reads the result of a Q/DQ pair computes in int8; the type between is a float on paper only
            products["INT8" if source.name in dequantised else source.dtype.name] += 1
    return Inspection(
        tuple(_tensor(network.get_input(i)) for i in range(network.num_inputs)),
        tuple(_tensor(network.get_output(i)) for i in range(network.num_outputs)),
        network.num_layers,
        dict(products),
    )


def check_precision(inspection: Inspection, precision: str) -> None:
    """Refuse what does not compute in the precision that was asked for.

    Raises:
        EngineError: a product computes in another type.
    """
    wanted = _TYPES[precision]
    # layers that quantisation left out (the first and the last, often) are no fault of the build
    wrong = {} if precision == "int8" else {t: n for t, n in inspection.products.items() if t != wanted}
    if wrong or (inspection.products and wanted not in inspection.products):
        found = ", ".join(f"{n} in {dtype.lower()}" for dtype, n in inspection.products.items())
        raise EngineError(f"asked for {precision}, but the convolutions and matrix products are: {found}")


def _tensor(tensor: Any) -> Tensor:
    return Tensor(tensor.name, tensor.dtype.name, tuple(tensor.shape))
