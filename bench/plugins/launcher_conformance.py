"""The conformance battery of launchers, for plugins to inherit.

    from bench.launcher_conformance import LauncherConformance

    class TestMine(LauncherConformance):
        launcher = Mine
        settings = {"queue": "short"}

Run it with pytest where the scheduler is. It starts up to three workers at a time, each for a few
seconds, in which they need no more than Python.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

from bench.system.errors import UserError
from bench.system.launch import Call, Launcher, Worker
from bench.system.launch.base import CODE, WORKER

SECONDS = 300.0
"""How long a scheduler may take to start a worker, or to end it."""


def main() -> None:
    """What the workers of the battery do, as their argument says."""
    print("not JSON", flush=True)
    facts = {
        "number": int(os.environ[WORKER].partition("/")[0]),
        "code": os.environ[CODE],
        "cwd": str(Path.cwd()),
    }
    print(json.dumps(facts | {"arguments": sys.argv[1:]}), flush=True)
    what = sys.argv[1]
    if what == "end":
        print(json.dumps({"line": "x" * 100_000}), flush=True)
        print("first\nlast words", file=sys.stderr, flush=True)
        sys.exit(3)
    if what == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
        time.sleep(SECONDS)


class LauncherConformance:
    """Tests of one launcher with some settings."""

    launcher: ClassVar[type[Launcher]]
    settings: ClassVar[Mapping[str, object]] = {}

    @contextmanager
    def _started(
        self, folder: Path, arguments: Sequence[str], count: int
    ) -> Iterator[tuple[list[Worker], list[list[dict[str, Any]]]]]:
        """Workers, and what each reports, which threads collect."""
        call = Call(arguments, folder, code="abc", module=__name__)
        workers = self.launcher(self.settings).start(call, range(1, count + 1))
        heard: list[list[dict[str, Any]]] = [[] for _ in workers]

        def listen(worker: Worker, found: list[dict[str, Any]]) -> None:
            for line in worker.lines():
                if line.startswith("{") and '"note"' not in line:  # of the launcher itself
                    found.append(json.loads(line))

        threads = [Thread(target=listen, args=pair) for pair in zip(workers, heard, strict=True)]
        for thread in threads:
            thread.start()
        try:
            yield workers, heard
            for thread in threads:
                thread.join(SECONDS)
                assert not thread.is_alive(), "`lines` has not ended with its worker"
        finally:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.wait(SECONDS)
                worker.close()

    def test_name_and_summary_are_one_line(self) -> None:
        """The launcher can be named and listed."""
        assert self.launcher.name
        assert self.launcher.summary
        assert "\n" not in self.launcher.summary

    def test_unknown_setting_is_refused_by_name(self) -> None:
        """A typing error is no silent default."""
        reason = ""
        try:
            self.launcher({**self.settings, "no_such_setting": "1"})
        except UserError as error:
            reason = str(error)
        assert "no_such_setting" in reason

    def test_each_worker_gets_its_number_and_reports_every_line(self, tmp_path: Path) -> None:
        """Arguments, folder, environment, long lines, exit status and last words arrive."""
        arguments = ["end", "two words", 'quote " and $HOME', "ü"]
        with self._started(tmp_path, arguments, 3) as (workers, heard):
            assert [worker.number for worker in workers] == [1, 2, 3]
            assert [worker.wait(SECONDS) for worker in workers] == [3, 3, 3]
        for number, lines in enumerate(heard, 1):
            here = {"number": number, "code": "abc", "cwd": str(Path.cwd())}
            assert lines == [here | {"arguments": arguments}, {"line": "x" * 100_000}]

    def test_last_words_are_the_last_line_of_the_errors(self, tmp_path: Path) -> None:
        """They say why a worker has stopped."""
        with self._started(tmp_path, ["end"], 1) as ([worker], _):
            assert worker.wait(SECONDS) == 3
            assert worker.last_words() == "last words"

    def test_worker_ends_on_sigterm(self, tmp_path: Path) -> None:
        """`stop` sends it, and does nothing to a worker that has ended."""
        self._end(tmp_path, "stop")

    def test_worker_ends_when_killed(self, tmp_path: Path) -> None:
        """`kill` also does nothing to a worker that has ended."""
        self._end(tmp_path, "kill")

    def _end(self, tmp_path: Path, how: str) -> None:
        with self._started(tmp_path, ["wait"], 2) as (workers, heard):
            deadline = time.monotonic() + SECONDS
            while not all(heard):
                assert time.monotonic() < deadline, "the workers have not started"
                time.sleep(0.1)
            assert [worker.wait(0.1) for worker in workers] == [None, None]
            for worker in workers:
                getattr(worker, how)()
            status = [worker.wait(SECONDS) for worker in workers]
            assert None not in status
            assert 0 not in status
            for worker in workers:
                worker.stop()
                worker.kill()
