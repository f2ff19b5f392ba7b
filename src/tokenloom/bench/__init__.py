"""Benchmarks: ours and the peers in turn, in one run, each in a process of its own."""
