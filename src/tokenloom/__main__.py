"""Entry point of `python -m tokenloom`."""

from tokenloom.cli.main import main

main()
