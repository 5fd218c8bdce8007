"""Sinks of a stream's rendered predictions: encoders and recordings for its viewers."""
