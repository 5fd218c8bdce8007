"""Tasks that can be trained: data, network, loss and measure of a recipe."""
