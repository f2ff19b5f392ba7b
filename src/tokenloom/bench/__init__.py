"""Benchmarks against installed libraries, each implementation in its own process."""
