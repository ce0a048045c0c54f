"""Kills commands at random points, runs them again, and compares with an undisturbed run."""

import json
import random
import re
import shutil
import signal
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from bench.system.files import sha256, write_text
from bench.training.card import WEIGHTS
from bench.training.checkpoint import STATE, load_state
from tests.torture import check
from tests.torture.disk import cut
from tests.torture.forks import Ended, Kill, run
from tests.torture.scenarios import SCENARIOS, TRAIN, Scenario
from tests.torture.shim import Shadow

POWER = "power cut"
KINDS = {
    "SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT,
    "SIGUSR1": signal.SIGUSR1, POWER: signal.SIGKILL,
}  # fmt: skip
ABRUPT = ("SIGKILL", POWER)
MOST = 4
"""Maximum number of kills per command; then it runs undisturbed."""
AT_EVENTS = 0.7
"""Share of kills at a file operation; the others are at a random time."""
STOPPED = "Stopped. Finished work is kept. Run the same command to continue."
NOTHING_KEPT = "Stopped. Nothing was kept. Run the same command to start again."
CHECKPOINT = re.compile(r"Stopped \S+ at step (\d+) of \d+; its checkpoint is written")
FINISHED = re.compile(r"Stopped after the last step of \S+: its weights are written")


@dataclass
class Chain:
    """One command, killed a few times and then run undisturbed."""

    scenario: str
    kind: str
    kills: int = 0
    cold: bool = False
    outside: int = 0
    """Signals before the command could handle them, or after its end."""
    answers: dict[str, int] = field(default_factory=dict)
    resumed: bool = False
    lost: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether the command resumed and no problem was found."""
        return self.resumed and not (self.lost or self.corrupt or self.problems)


@dataclass(frozen=True)
class Undisturbed:
    """Start, operations and results of a command that is not killed."""

    start: Path
    content: dict[str, str]
    events: int
    seconds: float
    states: dict[int, str]
    """SHA-256 of the checkpoint after each step."""


class Torture:
    """Undisturbed runs of some scenarios, and chains of kills for each."""

    def __init__(self, work: Path, seed: int, names: tuple[str, ...], cold: int = 0) -> None:
        self.work, self.seed, self.cold = work, seed, cold
        self.names = [n for n in names for _ in range(SCENARIOS[n].share)]
        random.Random(seed).shuffle(self.names)
        self.known = {name: self._undisturbed(name) for name in names}

    def _undisturbed(self, name: str) -> Undisturbed:
        scenario, start = SCENARIOS[name], self.work / name / "start"
        start.mkdir(parents=True)
        scenario.setup(start)
        for arguments in scenario.before:
            self._must(run(arguments, start, Kill()), arguments)
        states: dict[int, str] = {}
        if scenario.checkpoints:
            tree, kept = self._copy(start, "states"), self.work / name / "kept"
            every = (*TRAIN, "--set", "train.checkpoint_every=1")
            self._must(run(every, tree, Kill(), states=kept), every)
            states = {int(p.stem): sha256(p) for p in kept.iterdir()}
        tree, log = self._copy(start, "end"), self.work / name / "events"
        ended = self._must(run(scenario.arguments, tree, Kill(), log=log), scenario.arguments)
        events = len(log.read_text().splitlines()) if log.exists() else 0
        assert not check.leftovers(tree), check.leftovers(tree)
        return Undisturbed(start, check.content(tree), events, ended.seconds, states)

    def _copy(self, start: Path, name: str) -> Path:
        tree = start.parent / name / "tree"
        shutil.rmtree(tree.parent, ignore_errors=True)
        shutil.copytree(start, tree)  # keeps modification times, which identify prepared sources
        return tree

    def _must(self, ended: Ended, arguments: tuple[str, ...]) -> Ended:
        if ended.code:
            raise RuntimeError(f"bench {' '.join(arguments)} failed without a kill: {ended.text}")
        return ended

    @cache  # noqa: B019 - only one instance exists
    def _cold_seconds(self, name: str) -> float:
        """Seconds of a command in a new interpreter; checks that its results equal a fork's."""
        arguments, tree = SCENARIOS[name].arguments, self._copy(self.known[name].start, "cold")
        ended = self._must(run(arguments, tree, Kill(cold=True)), arguments)
        found = check.differing(self.known[name].content, check.content(tree))
        assert not found, found
        return ended.seconds

    def chain(self, index: int) -> Chain:
        """The chain with this number: reproducible, except for the moments of kills by time."""
        rng = random.Random(f"{self.seed}/{index}")
        name = self.names[index % len(self.names)]
        kind = list(KINDS)[(index // len(self.names) + index) % len(KINDS)]
        if kind == POWER and SCENARIOS[name].workers:
            kind = "SIGKILL"
        cold = bool(self.cold) and index % self.cold == 0 and kind != POWER
        chain = Chain(name, kind, cold=cold)
        known, scenario = self.known[name], SCENARIOS[name]
        tree = self._copy(known.start, "killed")
        for _ in range(rng.randint(1, MOST)):
            if self._kill(chain, scenario, known, tree, rng):
                break
        rows = check.dated(tree) if not chain.corrupt else {}
        ended = run(scenario.arguments, tree, Kill())
        chain.resumed = ended.code == 0
        if ended.code or "Traceback" in ended.text:
            chain.problems.append(f"the same command ended with {ended.code}: {ended.text}")
            return chain
        after = check.dated(tree)
        chain.lost += [f"{k} was made again" for k in rows if after.get(k) != rows[k]]
        chain.corrupt += check.differing(known.content, check.content(tree))
        chain.problems += [f"left behind: {found}" for found in check.leftovers(tree)]
        return chain

    def _kill(self, chain: Chain, scenario: Scenario, known: Undisturbed, tree: Path,
              rng: random.Random) -> bool:  # fmt: skip
        """Kill the command once; return True if it finished first."""
        number = KINDS[chain.kind]
        if chain.cold:
            kill = Kill(number, after=rng.uniform(0, self._cold_seconds(chain.scenario)), cold=True)
        elif rng.random() < AT_EVENTS and known.events:
            kill = Kill(number, at=rng.randint(1, known.events))
        else:
            kill = Kill(number, after=rng.uniform(0, known.seconds))
        shadow = Shadow(tree.parent / "shadow") if chain.kind == POWER else None
        if shadow is not None:
            shadow.start(tree)
        found_before = check.leftovers(tree)  # from an earlier kill
        ended = run(scenario.arguments, tree, kill, shadow=shadow)
        if ended.code == 0:
            return True
        chain.kills += 1
        if shadow is not None:
            chain.lost += cut(tree, shadow, rng)
        chain.corrupt += check.damaged(tree)
        for path in check.states(tree) if known.states else ():
            step = load_state(path).step
            if known.states.get(step) != sha256(path):
                chain.corrupt.append(f"the checkpoint of step {step} differs")
        if chain.kind in ABRUPT:
            if ended.code != -signal.SIGKILL:
                chain.problems.append(f"ended with {ended.code}: {ended.text}")
        else:
            self._answered(chain, scenario, tree, ended, number, found_before)
        return False

    def _answered(self, chain: Chain, scenario: Scenario, tree: Path, ended: Ended,
                  number: int, found_before: list[str]) -> None:  # fmt: skip
        """Check the message and the files of a command that was asked to stop by a signal."""
        early = ended.code == -number or (ended.code in (70, 71) and "main()" not in ended.text)
        if early and check.leftovers(tree) == found_before:
            chain.outside += 1
            return
        found = CHECKPOINT.search(ended.text)
        answer = "stopped"
        if found:
            answer = "checkpoint"
            paths = check.states(tree)
            if [load_state(path).step for path in paths][:1] != [int(found[1])]:
                chain.lost.append(f"no checkpoint of step {found[1]}, which the message names")
        elif FINISHED.search(ended.text):
            answer = "weights"
            if not list(tree.rglob(WEIGHTS)):
                chain.lost.append("no weights, which the message names")
        elif STOPPED not in ended.text and NOTHING_KEPT not in ended.text:
            answer = "?"
        elif scenario.checkpoints and _unsaved(tree):
            chain.lost.append(f"steps {_unsaved(tree)} were trained and are in no checkpoint")
        chain.answers[answer] = chain.answers.get(answer, 0) + 1
        # CPython itself ends like this if an interrupt has passed through code from a string.
        as_interrupt = (130, -signal.SIGINT) if chain.cold else (130,)
        if ended.code not in as_interrupt or answer == "?" or "Traceback" in ended.text:
            chain.problems.append(f"answered {chain.kind} with {ended.code}: {ended.text}")
        # If a signal interrupts the removal of an empty folder or a lease, the next run removes it.
        left = [k for k in check.leftovers(tree, folders=False) if not check.is_lease(k)]
        chain.problems += [f"left behind: {name}" for name in left]


def _unsaved(tree: Path) -> list[int]:
    """Steps in the log that neither a checkpoint nor the weights cover."""
    found = []
    for log in tree.rglob("log.jsonl"):
        if (log.parent / WEIGHTS).exists():
            continue
        state = log.parent / STATE
        saved = load_state(state).step if state.exists() else 0
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        found += [step for step in steps if step >= saved]
    return found


def torture(names: tuple[str, ...], kills: int, seed: int, work: Path, out: Path | None,
            seconds: float = float("inf"), cold: int = 0) -> list[Chain]:  # fmt: skip
    """Run chains until `kills` is reached; resume from `out` if it has the same seed."""
    started = time.monotonic()
    chains: list[Chain] = []
    if out is not None and out.exists():
        kept = json.loads(out.read_text())
        if kept["seed"] == seed and tuple(kept["scenarios"]) == names:
            chains = [Chain(**chain) for chain in kept["chains"]]
    machine = Torture(work, seed, names, cold)
    while sum(c.kills for c in chains) < kills and time.monotonic() - started < seconds:
        chain = machine.chain(len(chains))
        chains.append(chain)
        done = sum(c.kills for c in chains)
        what = f"{chain.scenario}, {chain.kind}{', cold' * chain.cold}"
        print(f"{done}/{kills} {what}: {chain.kills} kills", flush=True)
        for line in (*chain.lost, *chain.corrupt, *chain.problems):
            print(f"  {line}", flush=True)
        if out is not None:
            kept = {"seed": seed, "scenarios": names, "chains": [asdict(c) for c in chains]}
            write_text(out, json.dumps(kept, indent=1) + "\n")
    return chains


def table(chains: list[Chain]) -> str:
    """Kills, resumed chains, losses and damage by scenario and kind, as text."""
    lines = [f"{'scenario':<10}{'kind':<11}{'kills':>6}{'chains':>8}{'resumed':>9}{'lost':>6}"
             f"{'corrupt':>9}  answers"]  # fmt: skip
    for name, kind in sorted({(c.scenario, c.kind) for c in chains}):
        own = [c for c in chains if (c.scenario, c.kind) == (name, kind)]
        answers = sum(
            (Counter(c.answers) for c in own), Counter(outside=sum(c.outside for c in own))
        )
        said = ", ".join(f"{n} {what}" for what, n in sorted(answers.items()) if n)
        lines.append(
            f"{name:<10}{kind:<11}{sum(c.kills for c in own):>6}{len(own):>8}"
            f"{sum(c.resumed for c in own):>9}{sum(len(c.lost) for c in own):>6}"
            f"{sum(len(c.corrupt) for c in own):>9}  {said}"
        )
    return "\n".join(lines)
