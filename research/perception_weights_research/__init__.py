"""Models of streets that are for research only: their files are in this folder, and `perception` finds them by name."""
