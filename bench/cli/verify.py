"""`bench verify`: recomputes a few stored rows and compares them with the stored values."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.experiment.place import (
    BATCH_MOST,
    DEFAULT_EXPERIMENT,
    DEFAULT_RESULTS,
    SAMPLES_MOST,
    SEED_MOST,
)
from bench.system.errors import UserError, counted

if TYPE_CHECKING:
    from bench.experiment.inversion_rows import InversionRow
    from bench.experiment.rows import Row


def verify_command(
    cells: Annotated[int, typer.Option(min=1, max=SAMPLES_MOST, help="Rows to recompute.")] = 5,
    seed: Annotated[
        int, typer.Option(min=0, max=SEED_MOST, help="Seed of the choice of rows.")
    ] = 0,
    batch: Annotated[
        int, typer.Option(min=1, max=BATCH_MOST, help="Batch size of the sweep.")
    ] = 256,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
    device: options.Device = "auto",
    plugin: options.Plugins = None,
) -> None:
    """Recompute a few stored rows and compare; exit status 1 if one differs."""
    from bench.experiment.inversion_rows import InversionRow, read_inversion
    from bench.experiment.rows import Changed, read_row
    from bench.experiment.suite import flags
    from bench.inversion.verify import verify_inversion
    from bench.sweep.verify import Finding, verify_row
    from bench.system.devices import resolve_device

    reporter, found = options.begin(plugin, results, experiment)
    where = resolve_device(device)
    rows: list[tuple[Path, Row | InversionRow]] = []
    findings: list[Finding] = []
    for folder, read in ((found.cells, read_row), (found.inversions, read_inversion)):
        for path in sorted(folder.glob("*/*.json")):
            try:
                rows.append((path, read(path)))
            except Changed as error:
                findings.append(Finding(path, "differs", error.how))
    if not rows and not findings:
        raise UserError(f"There are no rows in {found.cells}: bench sweep{flags(found)}.")
    total = len(rows) + len(findings)
    for path, row in rows:
        if (path.parent.name, path.stem) != (row.run, row.key[:24]):
            text = f"its name is that of another cell; it should be {row.key[:24]}"
            findings.append(Finding(path, "differs", text))
    able = [(path, row) for path, row in rows if row.status == "ok"]
    picked = random.Random(seed).sample(able, min(cells, len(able)))
    with reporter.bar("verify", len(picked)) as bar:
        for done, (path, row) in enumerate(picked):
            if isinstance(row, InversionRow):
                findings.append(verify_inversion(path, row, found, where, batch))
            else:
                findings.append(verify_row(path, row, found, where, batch))
            bar.update(done + 1, f"{row.run} g={row.guidance:g}")
    for finding in findings:
        if finding.verdict in ("differs", "stale"):
            reporter.say(f"{finding.path}: {finding.verdict}, {finding.text}.")
    count = Counter(finding.verdict for finding in findings)
    largest = max((finding.largest for finding in findings), default=0.0)
    reporter.say(
        f"Checked {len(findings)} of {counted(total, 'row')}: {count['equal']} equal bit for bit, "
        f"{count['close']} equal up to rounding (largest relative difference {largest:.1e}), "
        f"{count['stale']} stale.",
    )
    if other := count["differs"]:
        differ = "differs from its" if other == 1 else "differ from their"
        raise UserError(
            f"{counted(other, 'row')} {differ} recomputed values: remove those files and sweep "
            "again."
        )
