"""`bench verify`: computes a few stored rows again, and says whether they are what they say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.options import begin
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS
from bench.system.errors import UserError

if TYPE_CHECKING:
    from bench.experiment.inversion_rows import InversionRow
    from bench.experiment.rows import Row
    from bench.sweep.verify import Finding
    from bench.system.progress import Reporter


def verify_command(
    cells: Annotated[int, typer.Option(min=1, help="Rows to compute again.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of rows.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time, as the sweep had.")] = 256,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
    device: options.Device = "auto",
    plugin: options.Plugins = None,
) -> None:
    """Compute a few stored rows again and compare; exit status 1 if one differs."""
    from bench.experiment.inversion_rows import InversionRow, read_inversion
    from bench.experiment.rows import Changed, read_row
    from bench.experiment.suite import flags
    from bench.inversion.verify import verify_inversion
    from bench.sweep.verify import Finding, verify_row
    from bench.system.devices import resolve_device

    reporter, found = begin(plugin, results, experiment)
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
            text = f"its name is that of another cell; its own is {row.key[:24]}"
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
    _show(reporter, findings, total)


def _show(reporter: Reporter, findings: list[Finding], total: int) -> None:
    for found in findings:
        if found.verdict in ("differs", "stale"):
            reporter.say(f"{found.path}: {found.verdict}, {found.text}.")
    count = {v: sum(f.verdict == v for f in findings) for v in ("equal", "close", "stale")}
    largest = max((f.largest for f in findings), default=0.0)
    reporter.say(
        f"Of {total} rows {len(findings)} were looked at: {count['equal']} equal to the last bit, "
        f"{count['close']} equal but for rounding (largest relative difference {largest:.1e}), "
        f"{count['stale']} stale.",
    )
    wrong = sum(f.verdict == "differs" for f in findings)
    if wrong:
        raise UserError(
            f"{wrong} rows differ from what their cells give: remove those files and sweep again."
        )
