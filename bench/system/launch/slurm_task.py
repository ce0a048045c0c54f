"""What a task of a Slurm job does: it is a worker, and puts itself back into the queue."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.system.files import write_text
from bench.system.launch.base import Call

FOLLOW = 0.2
"""Seconds between two looks into a file that another process writes."""
RESTARTS = 20
"""How often a worker comes back without having finished an item, before it gives up."""
STOPPED = 130
"""Exit status of a command that a signal has stopped."""


@dataclass(frozen=True)
class Run:
    """What a task of the array does: the command as a worker, in the process of submitit."""

    call: Call
    number: int
    folder: Path

    def checkpoint(self) -> Any:
        """The same again: submitit calls this on SIGUSR1 before the command has begun."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __call__(self) -> int:
        """Run the command; its exit status. Writes it behind the lines unless it comes back."""
        node = os.environ.get("SLURM_PROCID", "0")
        name = f"{self.number}" if node == "0" else f"{self.number}-node{node}"
        out, err = (self.folder / f"{name}.{kind}" for kind in ("out", "err"))
        with out.open("ab") as lines, err.open("ab") as errors:
            if lines.tell():  # its predecessor was killed, perhaps within a line
                lines.write(b"\n")
                lines.flush()
            status = self._run(lines.fileno(), errors.fileno())
            if status == STOPPED and self._may_return(out) and _requeue():
                lines.write(b'{"restart": true}\n')
            else:
                lines.write(json.dumps({"exit": status}).encode() + b"\n")
        return status

    def _run(self, out: int, err: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [os.dup(fd) for fd in range(3)]
        never_ends, held = os.pipe()  # a worker stops at the end of its standard input
        for fd, target in enumerate((never_ends, out, err)):
            os.dup2(target, fd)
        os.environ |= self.call.environment(self.number)
        try:
            if self.call.nodes * self.call.processes > 1:
                self._torchrun()
            else:
                sys.argv = ["bench", *self.call.arguments]
                exec(self.call.source(), {})
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt:
            status = STOPPED
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, copy in enumerate(saved):
                os.dup2(copy, fd)
            os.close(held)
        return status

    def _torchrun(self) -> None:
        """Be torchrun on this node. The first node says where it is, in a file."""
        from torch.distributed.run import main

        node, file = int(os.environ["SLURM_PROCID"]), self.folder / "leader.json"
        attempt = [os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0")]
        if node == 0:
            with socket.socket() as free:
                free.bind(("", 0))
                place = [socket.gethostname(), free.getsockname()[1]]
            write_text(file, json.dumps([attempt, place]))
        found: Any = None
        while not found or found[0] != attempt:  # the first node may not have started yet
            time.sleep(FOLLOW)
            with suppress(OSError, ValueError):
                found = json.loads(file.read_text(encoding="utf-8"))
        host, port = found[1]
        main(
            [
                f"--nnodes={self.call.nodes}", f"--nproc-per-node={self.call.processes}",
                f"--node-rank={node}", f"--master-addr={host}", f"--master-port={port}",
                "-m", self.call.module, *self.call.arguments,
            ]
        )  # fmt: skip

    def _may_return(self, lines: Path) -> bool:
        """Whether an item was finished in the last `RESTARTS` starts."""
        text = lines.read_text(encoding="utf-8", errors="replace")
        return text.rpartition('"end": ')[2].count('{"restart": true}') < RESTARTS


def _requeue() -> bool:
    """Put this task back into the queue, unless it was cancelled or Slurm does it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else (
        f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    )  # fmt: skip
    try:
        shown = subprocess.run(
            ["scontrol", "show", "job", job], capture_output=True, text=True, timeout=60, check=True
        )
        if "JobState=RUNNING" not in shown.stdout:
            return False
        subprocess.run(["scontrol", "requeue", job], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
