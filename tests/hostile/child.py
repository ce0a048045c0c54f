"""Runs readers on bad files with little memory; started by `test_readers` in a process."""

import faulthandler
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import torch

from tests.hostile.readers import READERS, outcome

HEADROOM = 1 << 30
"""Bytes of address space beyond those of the libraries: a third of an expanded bomb."""
PATIENCE = 20
"""Seconds after which a reader counts as hung; each needs only a fraction of a second."""


class Hangs(BaseException):
    pass


def _stop(*_: object) -> None:
    raise Hangs


def limit() -> None:
    status = Path("/proc/self/statm").read_text()
    used = int(status.split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, used + HEADROOM))


def main(files: Path, result: Path, names: list[str]) -> None:
    """Try these readers on the files of a folder.

    `result` receives JSON with the number of files tried and a list of [reader, file, problem].
    """
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(600, exit=True)
    signal.signal(signal.SIGALRM, _stop)
    bad = sorted(files.iterdir())
    limit()
    found, tried = [], 0
    for name in names:
        reader = READERS[name]
        folder = Path.cwd() / "place" / name.replace(" ", "-")
        path = folder / reader.file
        path.parent.mkdir(parents=True)
        reader.prepare(folder)
        for file in bad:
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            if file.is_symlink():
                path.symlink_to(path.name)
            elif file.is_fifo():
                os.mkfifo(path)
            elif file.is_dir():
                path.mkdir()
            elif file.is_file():
                os.link(file, path) if not name.startswith("log") else shutil.copy(file, path)
            else:
                os.link(file, path)
            signal.alarm(PATIENCE)
            try:
                said = outcome(reader, path)
            except Hangs:
                said = "hangs"
            signal.alarm(0)
            tried += 1
            if said:
                found.append([name, file.name, said])
    result.write_text(json.dumps({"tried": tried, "found": found}))
