"""LeNet-5 (LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998) and what became of it."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from perception.networks.flatten import Flatten


def _lenet5(classes: int, activation: type[nn.Module], pooling: type[nn.Module]) -> OrderedDict[str, nn.Module]:
    """Layers under the names of the paper."""
    flatten = Flatten(16, 4, 4)
    return OrderedDict(
        C1=nn.Conv2d(1, 6, 5),
        act1=activation(),
        S2=pooling(2),
        C3=nn.Conv2d(6, 16, 5),
        act3=activation(),
        S4=pooling(2),
        flatten=flatten,
        F5=nn.Linear(flatten.features, 120),
        act5=activation(),
        F6=nn.Linear(120, 84),
        act6=activation(),
        F7=nn.Linear(84, classes),
    )


class LeNet5(nn.Sequential):
    """C1 6@24x24, S2 6@12x12, C3 16@8x8, S4 16@4x4, F5 120, F6 84, F7 classes; tanh, average pooling.

    As it is built today: C3 sees all of S2 and the output layer is dense. 44 426 parameters with ten classes.

    Takes float ``[N, 1, 28, 28]``, gives logits ``[N, classes]``.
    """

    input_shape = (1, 28, 28)

    def __init__(self, classes: int = 10) -> None:
        super().__init__(_lenet5(classes, nn.Tanh, nn.AvgPool2d))


class LeNet5V2(nn.Sequential):
    """`LeNet5` with ReLU and max pooling: the same parameters, about half the error on MNIST."""

    input_shape = (1, 28, 28)

    def __init__(self, classes: int = 10) -> None:
        super().__init__(_lenet5(classes, nn.ReLU, nn.MaxPool2d))


class LeNetColor(nn.Sequential):
    """LeNet for small colour images: 18 and 28 maps of 5x5, then 700-360-252-classes.

    Takes float ``[N, 3, 32, 32]``, gives logits ``[N, classes]``. The 700 are the 28 maps of 5x5.
    """

    input_shape = (3, 32, 32)

    def __init__(self, classes: int = 10) -> None:
        flatten = Flatten(28, 5, 5)
        super().__init__(
            OrderedDict(
                C1=nn.Conv2d(3, 18, 5),
                act1=nn.ReLU(),
                S2=nn.MaxPool2d(2),
                C3=nn.Conv2d(18, 28, 5),
                act3=nn.ReLU(),
                S4=nn.MaxPool2d(2),
                flatten=flatten,
                F5=nn.Linear(flatten.features, 360),
                act5=nn.ReLU(),
                F6=nn.Linear(360, 252),
                act6=nn.ReLU(),
                F7=nn.Linear(252, classes),
            )
        )
