"""A small training, a sweep under two rules and a report in one process, run by `python -m`."""

import sys
from pathlib import Path

from tests.bench.helpers import TINY, TOY_METRICS, bench, sets


def main(results: str, batch: str, *data: str) -> None:
    """Write results to the folder `results`."""
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
    Path(sys.argv[1]).mkdir(parents=True)
    main(*sys.argv[1:])
