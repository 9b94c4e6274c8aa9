"""Contenders that run in a process of their own: `python -m contenders.NAME ...` in the benchmarks folder."""
