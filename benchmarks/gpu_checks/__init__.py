"""The checks of `benchmarks/gpu.py`, one file a group, and what they share."""
