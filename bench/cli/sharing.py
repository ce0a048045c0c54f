"""Who computes the items of a command: --launcher and --workers, or a suite's [launcher] table."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bench.cli.options import UNTIL_THE_END
from bench.system.errors import UserError
from bench.system.launch import Apart, Launcher, make_launcher, parse_launcher
from bench.system.launch.base import RESULTS

if TYPE_CHECKING:
    import torch

    from bench.experiment.place import Experiment
    from bench.system.progress import Reporter

MEMORY = 2**30
"""Bytes that a process needs at least: torch, a small network and the data."""
MOST = 1024
"""Workers."""
FILE_OPTIONS = (
    "--plugin", "--suite", "--weights", "--null-checkpoint", "--weak-checkpoint", "--init-from",
    "--teacher",
)  # fmt: skip
"""Options whose values may be files or folders."""

MODULES = ("bench.plugins.catalogue", "bench.sweep.plan", "bench.sweep.run", "bench.tuning.tune")
"""What takes long to import in any command with workers."""


@dataclass(frozen=True)
class Sharing:
    """A launcher and the number of processes asked for, None for the default."""

    launcher: Launcher
    workers: int | None
    detach: bool = False
    nodes: int = 1
    processes: int = 1

    def on_nodes(self, nodes: int, processes: int) -> Sharing:
        """The same, with a worker that is so many processes on each of so many nodes."""
        if nodes * processes > 1 and not self.launcher.spans_nodes:
            raise UserError(
                "--nodes and --gpus need a launcher that starts processes on them: --launcher "
                f"slurm, not {self.launcher.name}. On this machine: torchrun.",
                code=2,
            )
        return replace(self, nodes=nodes, processes=processes)

    def device(self, name: str) -> str:
        """The name of the device of this process: "cpu" if it only waits for its workers."""
        from bench.system.workers import is_worker

        prepares = self.launcher.computes_here or not self.launcher.shares_folders
        return name if prepares or is_worker() else "cpu"

    def count(self, device: torch.device) -> int:
        """The number of processes that compute.

        By default as many as there are GPUs, or physical cores where the CPU computes and memory
        is free; one where torchrun has started several.
        """
        from joblib import cpu_count

        from bench.system.devices import gpu_count
        from bench.system.memory import available_bytes

        if self.nodes * self.processes > 1:
            return 1
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if several and ((self.workers or 1) > 1 or not self.launcher.computes_here):
            raise UserError("torchrun starts the processes: drop --workers and --launcher.", code=2)
        if self.workers is not None or several:
            return self.workers or 1
        if not self.launcher.computes_here:
            raise UserError(
                f"Say how many workers {self.launcher.name} is to start: --workers 8.", code=2
            )
        if device.type == "cpu":
            room = available_bytes(device) or MEMORY
            return max(1, min(int(cpu_count(only_physical_cores=True)), room // MEMORY))
        return max(1, gpu_count()) if device.type == "cuda" else 1

    def begin(
        self, device: torch.device, experiment: Experiment, reporter: Reporter,
        datasets: Sequence[str],
    ) -> None:  # fmt: skip
        """Share the items of the command among `count` processes, until it ends.

        Workers apart from its folders get these `datasets`.
        """
        from bench.experiment.suite import flags
        from bench.plugins.load import FILES
        from bench.system.devices import gpu_count
        from bench.system.launch import Call
        from bench.system.member import code_hash
        from bench.system.record import FILE, recording
        from bench.system.workers import is_worker, with_workers

        gpus = gpu_count() if device.type == "cuda" else 0
        apart = None if self.launcher.shares_folders else _apart(experiment, datasets)
        count = self.count(device)
        call = Call(tuple(sys.argv[1:]), experiment.root, count, code_hash(FILES), gpus)
        call = replace(call, nodes=self.nodes, processes=self.processes, apart=apart)
        if self.detach and not is_worker():
            (experiment.root / FILE).unlink(missing_ok=True)
            reporter.say(self.launcher.detach(call, range(1, count + 1)))
            watch = shlex.join(part for part in sys.argv[1:] if part != "--detach")
            reporter.say(f"Watch it: bench {watch}")
            reporter.say(f"Look at it: bench status{flags(experiment)}")
            raise typer.Exit
        UNTIL_THE_END.enter_context(recording(experiment.root, fresh=not is_worker()))
        UNTIL_THE_END.enter_context(with_workers(self.launcher, call, count, reporter))


def _apart(experiment: Experiment, datasets: Sequence[str]) -> Apart:
    """What workers need in other folders: checkpoints, caches, data, and files of options."""
    from bench.data.card import DATA_FOLDER_VARIABLE, data_root

    arguments, named = list[str](), dict[str, Path]()
    before = ""
    for number, argument in enumerate(sys.argv[1:]):
        option, equals, value = argument.partition("=")
        option, value = (option, value) if equals else (before, argument)
        path, before = Path(value), argument
        if option == "--data":  # it is prepared by now
            arguments[len(arguments) - (not equals) :] = ["--dataset", *datasets]
            continue
        if option in FILE_OPTIONS and path.exists() and not (experiment.runs / value).exists():
            place = f"options/{number}/{path.name}"
            named[place] = path
            argument = f"{option}=\0/{place}" if equals else f"\0/{place}"
        arguments.append(argument)

    def files() -> dict[str, Path]:
        found = dict[str, Path]()
        for place, path in named.items():
            found |= _below(path, place)
        for folder in (experiment.cache, experiment.runs, experiment.tuned):
            found |= _below(folder, f"{RESULTS}/{folder.relative_to(experiment.results)}")
        for name in datasets:
            found |= _below(data_root() / name, f"data/{name}")
        return found

    own = ("--results", f"\0/{RESULTS}")
    environment = {DATA_FOLDER_VARIABLE: "\0/data"}
    return Apart(experiment.results, files, (*arguments, *own), environment, MODULES)


def _below(path: Path, place: str) -> dict[str, Path]:
    """A file, or the files below a folder that are not hidden, by their place in another folder.

    Without the optimiser's state, which only training reads.
    """
    from bench.training.checkpoint import PREVIOUS, STATE

    found = {place: path} if path.is_file() else {}
    for file in path.rglob("*"):
        name = file.relative_to(path)
        hidden = any(part.startswith(".") for part in name.parts)
        if file.is_file() and not hidden and file.name not in (PREVIOUS, STATE):
            found[f"{place}/{name.as_posix()}"] = file
    return found


def join_ranks() -> bool:
    """Share each cell among the processes of torchrun, until the command ends.

    Returns whether another one leads, which prints for all.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return False
    from bench.sweep.ranks import Ranks

    ranks = Ranks(int(os.environ["RANK"]), size)
    return not UNTIL_THE_END.enter_context(ranks).leads


def choose_sharing(
    workers: int | None,
    launcher: str | None = None,
    slurm: str | None = None,
    ray: str | None = None,
    suite: str | None = None,
    *,
    detach: bool = False,
) -> Sharing:
    """As the options say, else as the suite's [launcher] table, else on this machine.

    Settings of the suite hold beside those of the options, for the same launcher.
    """
    from bench.experiment.suite import read_suite

    table = {} if suite is None else dict(read_suite(suite).launcher)
    default, own = str(table.pop("name", "local")), table.pop("workers", None)
    if own is not None and not (isinstance(own, int) and 1 <= own <= MOST):
        raise UserError(f"[launcher] workers is a number from 1 to {MOST}, got {own!r}.", code=2)
    name, settings = default, dict[str, object]()
    if launcher is not None:
        name, settings = parse_launcher(launcher)
    for option, text in (("slurm", slurm), ("ray", None if ray is None else f"address={ray}")):
        if text is None:
            continue
        if launcher is not None and name != option:
            raise UserError(f"--{option} is for --launcher {option}, not {name}.", code=2)
        name, more = parse_launcher(f"{option}:{text}")
        settings |= more
    if name == default:
        settings = table | settings
    return Sharing(make_launcher(name, settings), own if workers is None else workers, detach)
