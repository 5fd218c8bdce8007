"""Footage of events: clips of the source as it came, and pictures of what was seen."""
