"""The pictures of docs/classics.md: ``python -m perception.classics.tour FOLDER``."""
