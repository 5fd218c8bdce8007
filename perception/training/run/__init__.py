"""A training run: loop, checkpoints, schedule, logs."""
