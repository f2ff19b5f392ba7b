"""The command line: one module per command, and the parameters that they share. Nothing else in the package prints."""
