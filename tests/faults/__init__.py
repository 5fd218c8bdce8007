"""Faults that are made on purpose, one row each: what breaks, how often, and what is left of the work.

    python -m tests.faults                           # all rows; prints the table that docs/reliability.md shows
    python -m tests.faults killed full-disk --quick  # some of them, a few times each

A row is a module with ``run(work)``; `tests.faults.rows` lists them.
"""
