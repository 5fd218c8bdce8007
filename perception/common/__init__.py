"""The ground that every room stands on: kernels and their cache, the machine, settings from YAML files."""
