"""Data sets, losses, the loop, metrics, export. Never imported by the runtime."""
