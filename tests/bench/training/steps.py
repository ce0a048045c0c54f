"""Faults in the middle of a training step, and the steps that a log has."""

import json

from bench.training import loop
from bench.training.step import learning_rate


def steps_logged(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def at_step(monkeypatch, step, act):
    """Have `act` happen in the middle of training step `step`."""

    def rate(settings, at):
        if at == step:
            act()
        return learning_rate(settings, at)

    monkeypatch.setattr(loop, "learning_rate", rate)


def crash():
    raise RuntimeError("the power went off")
