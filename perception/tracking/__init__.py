"""Tracking: which box of this frame is which of the last one. Kernels in Numba, times in seconds, no network."""
