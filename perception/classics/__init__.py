"""The classic networks, from LeNet to Xception: windows, localisation, the tour. Nothing else depends on them."""
