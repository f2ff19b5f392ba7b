"""`python -m tokenloom`, where the script of that name is not on the path."""

from tokenloom.cli.main import main

main()
