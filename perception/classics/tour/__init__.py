"""The pictures of docs/classics.md."""
