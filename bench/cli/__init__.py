"""The command line, one module per command: parse, call, print."""

import os


def one_thread() -> None:
    """Let this process compute with one thread by default; without effect once torch is imported.

    On a busy machine two threads that wait for each other are many times slower than one, since
    they spin; with "PASSIVE" they sleep.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Run the command line of this process."""
    one_thread()
    from bench.cli.app import main as run

    run()
