"""Workers as an array job of Slurm, submitted with submitit, in a folder that all nodes share.

The lines of each worker go to a file of its own, which the command follows: it may be killed and
started again, and finds the workers that are still there. A worker that is stopped by a time limit
or by preemption, which Slurm announces with SIGUSR1 or SIGTERM, puts itself back into the queue.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

from bench.system.errors import UserError, counted, visible
from bench.system.files import make_folder, write_text
from bench.system.launch.base import Call, Launcher, Worker, register
from bench.system.launch.slurm_task import FOLLOW, STOPPED, Run

FOLDER = ".slurm"
"""In the experiment's folder: one folder for each job, with what its workers write."""
LOOK = 5.0
"""Seconds between two questions to Slurm about a job."""
DETACH = "--detach"

TEXTS = (
    "partition", "account", "qos", "constraint", "nodelist", "exclude", "gres", "mem",
    "mem_per_gpu", "mem_per_cpu", "comment", "mail_user", "mail_type", "dependency", "reservation",
)  # fmt: skip
NUMBERS = ("gpus_per_node", "cpus_per_task", "cpus_per_gpu", "array_parallelism", "signal_delay_s")


@register
class Slurm(Launcher):
    """An array job, whose tasks share the folder of the experiment."""

    name = "slurm"
    summary = "an array job of Slurm, through submitit, in a shared folder"
    spans_nodes = True

    def __init__(self, settings: Mapping[str, object]) -> None:
        known = (*TEXTS, *NUMBERS, "time")
        if strange := [name for name in settings if name not in known]:
            raise UserError(
                f"Unknown setting of Slurm: {', '.join(strange)}. Available: "
                f"{', '.join(sorted(known))}.",
                code=2,
            )
        self.parameters: dict[str, Any] = {}
        for name, value in settings.items():
            if name == "time":
                self.parameters[name] = parse_minutes(value)
            elif name in NUMBERS:
                self.parameters[name] = _count(name, value)
            else:
                self.parameters[name] = str(value)

    def start(self, call: Call, numbers: Sequence[int]) -> list[Worker]:
        """Submit an array job, or find the one that this same command has submitted before."""
        job = _found(call) or self._submit(call, numbers, detached=False)
        followed = _Followed(job)
        return [_Task(followed, number) for number in range(1, job.count + 1)]

    def detach(self, call: Call, numbers: Sequence[int]) -> str:
        """Submit an array job that goes on without this command."""
        job = _found(call) or self._submit(call, numbers, detached=True)
        workers = counted(job.count, "worker")
        return f"Slurm job {job.number} with {workers}; scancel {job.number} stops it."

    def _submit(self, call: Call, numbers: Sequence[int], *, detached: bool) -> Job:
        if shutil.which("sbatch") is None:
            raise UserError(
                "There is no Slurm here (no sbatch): run this where its jobs are submitted.", code=2
            )
        # Read when submitit is imported, here and in the job: bench stops on this signal.
        os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"
        try:
            from submitit import SlurmExecutor
            from submitit.core.utils import FailedJobError
        except ImportError:
            raise UserError(
                "--launcher slurm needs submitit: pip install 'guidance-bench[slurm]'.", code=2
            ) from None
        folder = call.folder.absolute() / FOLDER / secrets.token_hex(4)
        make_folder(folder)
        parameters = dict(self.parameters)
        more = {"requeue": True}
        if "reservation" in parameters:
            more["reservation"] = parameters.pop("reservation")
        if call.nodes * call.processes > 1:
            parameters |= {"nodes": call.nodes, "ntasks_per_node": 1}
            if call.processes > 1:
                parameters.setdefault("gpus_per_node", call.processes)
        executor = SlurmExecutor(folder)
        executor.update_parameters(
            job_name="guidance-bench", additional_parameters=more, **parameters
        )
        try:
            with executor.batch():
                jobs = [executor.submit(Run(call, n, folder)) for n in numbers]
            identity = str(jobs[0].job_id).partition("_")[0]
        except (FailedJobError, subprocess.CalledProcessError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            why = [line for line in str(error).splitlines() if "error:" in line] or [str(error)]
            raise UserError(f"Slurm did not take the job: {visible(why[-1])}.") from None
        job = Job(folder, identity, len(numbers), _asked(call), call.code, detached)
        write_text(folder / "job.json", json.dumps(asdict(job) | {"folder": str(folder)}))
        return job


def parse_minutes(value: object) -> int:
    """Minutes from "90", "1:30:00" (hours) or "2-12:00:00" (days), as sbatch takes them."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(value))
    if found is not None:
        days, first, second, third = (None if g is None else int(g) for g in found.groups())
        if days is not None:
            minutes = days * 1440 + (first or 0) * 60 + (second or 0) + (third or 0) / 60
        elif third is not None:
            minutes = (first or 0) * 60 + (second or 0) + third / 60
        else:
            minutes = (first or 0) + (second or 0) / 60
        if minutes > 0:
            return max(1, round(minutes))
    raise UserError(f"Slurm's time is minutes, H:MM:SS or D-HH:MM:SS, got {value!r}.", code=2)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not str(value).isdigit() or int(str(value)) < 1:
        raise UserError(f"Slurm's {name} is a positive whole number, got {value!r}.", code=2)
    return int(str(value))


@dataclass(frozen=True)
class Job:
    """An array job, as its folder remembers it."""

    folder: Path
    number: str
    count: int
    arguments: tuple[str, ...]
    code: str
    detached: bool

    def file(self, number: int, kind: str) -> Path:
        """What a worker writes: "out" or "err"."""
        return self.folder / f"{number}.{kind}"

    def log(self, number: int) -> Path:
        """Where Slurm and submitit write the errors of a task."""
        return self.folder / f"{self.number}_{number - 1}_0_log.err"


def _asked(call: Call) -> tuple[str, ...]:
    return tuple(part for part in call.arguments if part != DETACH)


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of an experiment's folder, which may have ended."""
    jobs = []
    for path in sorted((folder / FOLDER).glob("*/job.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads(path.read_text(encoding="utf-8"))
            about |= {"folder": path.parent, "arguments": tuple(about["arguments"])}
            jobs.append(Job(**about))
    return jobs


def _found(call: Call) -> Job | None:
    """The job of this same command and code that Slurm still has."""
    for job in read_jobs(call.folder.absolute()):
        if (job.arguments, job.code) == (_asked(call), call.code) and task_states(job.number):
            return job
    return None


def task_states(job: str) -> dict[int, str] | None:
    """State and reason of each worker of a job that has not ended; None if Slurm does not answer.

    A job that Slurm no longer knows has none.
    """
    call = ["squeue", "--noheader", "--array", "--jobs", job, "--format", "%K %T %r"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return {} if "Invalid job id" in done.stderr else None
    found = {}
    for line in done.stdout.splitlines():
        task, _, state = line.partition(" ")
        found[int(task) + 1 if task.isdigit() else 1] = state  # one worker is no array
    return found


class _Followed:
    """A job that this command follows."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.open = job.count
        self.fine = True
        self._lock = Lock()
        self._states: dict[int, str] | None = None
        self._asked = -LOOK

    def states(self) -> dict[int, str] | None:
        """`task_states`, asked for at most every `LOOK` seconds."""
        with self._lock:
            if time.monotonic() - self._asked >= LOOK:
                self._states = task_states(self.job.number)
                self._asked = time.monotonic()
            return self._states


class _Task(Worker):
    """A task of the array job."""

    def __init__(self, followed: _Followed, number: int) -> None:
        super().__init__(number)
        self._followed, self._job = followed, followed.job
        self.lasts = self._job.detached
        self._status: int | None = None
        self._ended = Event()

    def lines(self) -> Iterator[str]:
        """The lines of its file, as they appear, and its place in the queue."""
        path, rest, place, told = self._job.file(self.number, "out"), b"", 0, ""
        while self._status is None:
            states = self._followed.states()
            news, place = _read_from(path, place)
            *whole, rest = (rest + news).split(b"\n")
            for line in whole:
                if line.startswith(b'{"exit":'):
                    self._status = int(json.loads(line)["exit"])
                elif line:
                    yield line.decode(errors="replace")
            if self.number == 1 and states and told != (told := queue(self._job, states)):
                yield json.dumps({"note": told})
            if not news and self._status is None:
                if states is not None and self.number not in states:
                    self._status = -1  # Slurm has ended it, and it has written nothing since
                else:
                    time.sleep(FOLLOW)
        self._ended.set()

    def stop(self) -> None:
        """Let Slurm send SIGTERM, or take it out of the queue."""
        self._cancel()

    def kill(self) -> None:
        """Let Slurm send SIGKILL, or take it out of the queue."""
        self._cancel("--signal=KILL")
        self._cancel()

    def _cancel(self, *options: str) -> None:
        if self._status is None:
            task = f"_{self.number - 1}" if self._job.count > 1 else ""
            call = ["scancel", "--quiet", *options, f"{self._job.number}{task}"]
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(call, capture_output=True, timeout=60)

    def wait(self, seconds: float) -> int | None:
        """Its exit status, -1 if Slurm has ended it."""
        self._ended.wait(seconds)
        return self._status

    def last_words(self) -> str:
        """The last line of its standard error, or what Slurm has logged."""
        paths = [self._job.file(self.number, "err"), self._job.log(self.number)]
        for path in paths if self._status != -1 else reversed(paths):
            with suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                if lines:
                    return visible(lines[-1])
        return ""

    def close(self) -> None:
        """Remove the job's folder with its last worker, if none failed."""
        started = self._job.file(self.number, "out").exists()
        self._followed.fine &= self._status in (0, STOPPED) or not started
        self._followed.open -= 1
        if self._followed.fine and not self._followed.open:
            shutil.rmtree(self._job.folder, ignore_errors=True)
            with suppress(OSError):
                self._job.folder.parent.rmdir()


def _read_from(path: Path, place: int) -> tuple[bytes, int]:
    with suppress(OSError), path.open("rb") as file:
        file.seek(place)
        news = file.read()
        return news, place + len(news)
    return b"", place


def queue(job: Job, states: Mapping[int, str] | None = None) -> str:
    """How many workers of a job run or wait, and why, in a sentence."""
    states = states or task_states(job.number)
    if not states:
        how = "does not answer" if states is None else "has ended, perhaps with errors"
        return f"Slurm job {job.number} {how}: {job.folder}."
    waiting = [state for state in states.values() if state.startswith("PENDING")]
    why = sorted({state.partition(" ")[2] for state in waiting} - {"", "None"})
    reasons = f" ({', '.join(why)})" if why else ""
    wait = f", {len(waiting)} wait{reasons}" if waiting else ""
    running = len(states) - len(waiting)
    return f"Slurm job {job.number}: {running} of {job.count} workers run{wait}."
