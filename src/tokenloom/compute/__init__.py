"""Where the arithmetic runs: device, precision, and how many processes share the work."""
