"""A street drawn in code: its source, what stands still, and what moves."""
