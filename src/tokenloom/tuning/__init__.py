"""Hyper-parameter search: settings to try, trials with a budget each, and what the trials show."""
