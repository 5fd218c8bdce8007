"""Check this machine and its engines."""
