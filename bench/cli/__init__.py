"""The command line, one module per command: parse, call, print."""


def main() -> None:
    """Run the command line of this process."""
    from bench.cli.app import main as run

    run()
