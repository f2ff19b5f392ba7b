"""The command line: argv to one call, and the only place that prints."""
