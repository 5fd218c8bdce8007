"""Hostile input of every kind, made up by the thousand: ``python -m tests.fuzz``; see docs/fuzzing.md."""
