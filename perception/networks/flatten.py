"""Flattening maps to a vector: the layer that fixes a network's image size."""

from __future__ import annotations

from torch import Tensor, nn

from perception.errors import UsageError


class Flatten(nn.Module):
    """``[N, C, H, W]`` to ``[N, C * H * W]`` for the one size that the dense layer behind it was made for.

    Args:
        channels, height, width: of the maps.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = (channels, height, width)

    @property
    def features(self) -> int:
        """Length of the vector."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            UsageError: maps of another size.
        """
        if tuple(x.shape[1:]) != self.shape:
            wanted, given = ("x".join(str(int(side)) for side in shape) for shape in (self.shape, x.shape[1:]))
            raise UsageError(
                f"the image has the wrong size for this network: its dense layer takes maps of {wanted}, not {given}; "
                "resize the image, or turn the dense layers into convolutions with to_fully_convolutional"
            )
        return x.flatten(1)

    def extra_repr(self) -> str:
        return "x".join(map(str, self.shape))
