"""Measurements against peers, side by side. `python -m benchmarks` lists them. Never part of CI."""
