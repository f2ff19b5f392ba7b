"""Weights at rest: our checkpoints, and the formats of others."""
