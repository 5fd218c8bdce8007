"""Stages: steps on predictions, between the model and what draws and writes them."""
