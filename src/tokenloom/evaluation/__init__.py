"""Honest numbers: how well a model predicts a text, and what simpler means reach on the same text."""
