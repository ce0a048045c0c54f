"""The command line, one module per command: parse, call, print."""

import os


def main() -> None:
    """Run the command line of this process, by default with one thread for computing.

    On a busy machine two threads that wait for each other are many times slower than one, since
    they spin; with "PASSIVE" they sleep. Both variables are read when torch is imported.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from bench.cli.app import main as run

    run()
