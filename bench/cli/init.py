"""`bench init`: a suite file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.system.errors import UserError, check_name

TEMPLATE = """\
# A suite: which methods are trained on which data, and how they are swept over guidance.
#
#   bench train --suite {file} --dry-run    prices it
#   bench train --suite {file}              trains what is missing
#   bench sweep --suite {file}              samples and measures what is missing
#   bench report --suite {file}             draws tables and figures
#
# `bench list methods` (rules, metrics, datasets, suites) prints the names that may stand here.
experiment = "{experiment}"

[[study]]
dataset = "modes1d"                 # bench list datasets; one's own: bench data prepare
methods = ["oracle", "edm", "igct"]
seeds = [0]                         # training seeds: one run per method and seed
guidance = "1..13:3"                # 1 is off; also "1,1.5,2" or [1, 4, 13]
rules = ["cfg", "apg"]              # of methods that are guided at sampling
samples = 1000                      # per cell
sampling_seeds = [0]
# metrics = ["fd", "w1"]            # by default all that fit the data
# preset = "modes1d"                # settings of the networks; or auto; by default those that fit
set = {{ "train.iterations" = 1000 }} # over the preset, as --set

# [study.knobs.apg]                 # settings of rules, as --knob apg.eta=0.5
# eta = 0.5

# Another [[study]] may follow, for another data set.
"""


def init_command(
    file: Annotated[Path, typer.Argument(help="TOML file to write.")] = Path("suite.toml"),
) -> None:
    """Write a suite file to start from: a small study, with every line explained."""
    from bench.system.files import write_text

    if file.suffix != ".toml":
        raise UserError(f"A suite is a .toml file, got {str(file)!r}.", code=2)
    if file.exists():
        raise UserError(f"{file} exists already: choose another name.", code=2)
    name = check_name("experiment", file.stem)
    reporter, _ = options.begin(entry_points=False, out=file.parent)
    write_text(file, TEMPLATE.format(file=file, experiment=name))
    reporter.say(f"Wrote {file}: change it as you like. Next: bench train --suite {file} --dry-run")
