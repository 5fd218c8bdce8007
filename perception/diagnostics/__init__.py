"""What this machine can run, and whether its engines agree."""
