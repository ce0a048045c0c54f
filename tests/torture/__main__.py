"""`python -m tests.torture`: kill commands at any point and check that they resume."""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from tests.torture.scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="by default all")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="start no new chain after this time"
    )
    parser.add_argument(
        "--cold", type=int, default=0, help="every n-th command in a new interpreter, which is slow"
    )
    parser.add_argument("--out", type=Path, help="JSON of the findings; resumes from it")
    options = parser.parse_args()
    importlib.import_module("tests.preload")
    from tests.torture.driver import table, torture

    names = tuple(options.scenario or SCENARIOS)
    with tempfile.TemporaryDirectory() as work:
        chains = torture(
            names, options.kills, options.seed, Path(work).resolve(), options.out,
            options.seconds, options.cold,
        )  # fmt: skip
    print(table(chains))
    bad = sum(not chain.good for chain in chains)
    kills = sum(chain.kills for chain in chains)
    print(f"{kills} kills in {len(chains)} chains; {bad} chains with a loss, damage or a problem.")
    return int(bool(bad) or kills < options.kills)


if __name__ == "__main__":
    sys.exit(main())
