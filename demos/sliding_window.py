"""Show that a dense layer is a convolution: a LeNet on a picture, window by window and as one network.

python demos/sliding_window.py [SIDE]
"""

import sys
import time

import torch

from perception.classics.fully_convolutional import to_fully_convolutional
from perception.networks.classifier import build_classifier

side = int(sys.argv[1]) if len(sys.argv) > 1 else 256
lenet = build_classifier("lenet5").eval()
converted = to_fully_convolutional(lenet, lenet.input_shape)
image = torch.randn(1, 1, side, side)
(height, width), (rows, columns) = converted.window, converted.step

with torch.inference_mode():
    start = time.perf_counter()
    windows = [
        lenet(image[:, :, y : y + height, x : x + width])
        for y in range(0, side - height + 1, rows)
        for x in range(0, side - width + 1, columns)
    ]
    one_by_one = time.perf_counter() - start
    converted(image)  # torch plans its convolutions at the first call
    start = time.perf_counter()
    maps = converted(image)
    at_once = time.perf_counter() - start

difference = (maps.flatten(2)[0].T - torch.cat(windows)).abs().max()
print(f"{len(windows)} windows of {width}x{height}, {columns} pixels apart, on {side}x{side}")
print(f"one by one {one_by_one * 1e3:.1f} ms, at once {at_once * 1e3:.2f} ms: {one_by_one / at_once:.0f} times faster")
print(f"largest difference {difference:.1g}")
