"""Entry point of the `tokenloom` command and of `python -m tokenloom`.

Signals are handled before the command line is imported, which takes longer than a short command.
"""

from tokenloom.cli.signals import exit_on_signals


def main() -> None:
    """Run the command line."""
    exit_on_signals()
    from tokenloom.cli.main import main as run_command

    run_command()


if __name__ == "__main__":
    main()
