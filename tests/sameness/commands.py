"""A small training, a sweep under two rules and a report in one process."""

import sys
from pathlib import Path

from tests.bench.helpers import TINY, TOY_METRICS, bench, sets


def main(results: str, batch: str) -> None:
    """Write results to the folder `results`."""
    Path(results).mkdir(parents=True)
    ends = [
        bench("train", "-m", "edm", "-d", "modes1d", *sets(*TINY), "--results", results),
        bench("train", "-m", "ct", "-d", "modes1d", *sets(*TINY), "--results", results),
        bench("sweep", "-g", "1,3", "-n", "50", "--rule", "cfg,interval+apg", "--batch", batch,
              *TOY_METRICS, "--results", results),
        bench("report", "--results", results),
    ]  # fmt: skip
    for end in ends:
        if end.code:
            sys.exit(end.err)


if __name__ == "__main__":
    main(*sys.argv[1:])
