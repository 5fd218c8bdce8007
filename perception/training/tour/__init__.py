"""The pictures of docs/classics.md: ``python -m perception.training.tour FOLDER``."""
