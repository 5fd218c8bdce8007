"""Foundations of all rooms: kernels and their cache, the machine, settings from YAML files."""
