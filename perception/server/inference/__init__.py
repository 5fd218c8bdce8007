"""Models by name, and one engine shared fairly."""
