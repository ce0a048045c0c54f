"""A second edm network beside a run's own: its unconditional branch, or a weaker one.

Networks trained with labels always, as EDM's published ones are, have no output without a class;
guidance then takes it from another, usually unconditional, network. Autoguidance leads away from
a network that is smaller or trained for less long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from bench.experiment.place import Experiment
from bench.sweep.cells import Target
from bench.system.errors import UserError, explain
from bench.system.files import sha256
from bench.training.runs import CARD, WEIGHTS, read_card, trained_runs
from methods import EDM
from methods.edm import EDMConfig

Role = Literal["null", "weak"]

OPTIONS: Mapping[Role, str] = {"null": "--null-checkpoint", "weak": "--weak-checkpoint"}
_PARTS: Mapping[Role, str] = {"null": "the unconditional branch", "weak": "the weaker network"}


@dataclass(frozen=True)
class SecondNetwork:
    """Weights of an edm network, the settings it has, and what it is for."""

    role: Role
    name: str
    weights: Path
    checkpoint: str
    config: EDMConfig
    sigma_data_known: bool
    """False where it is to be that of the run that the network joins."""
    dataset: str
    """'' where it is not known."""

    def join(self, found: Target) -> Target:
        """`found` with this network in its role; runs of other methods are left alone."""
        if not isinstance(found.method, EDM):
            return found
        if self.role == "weak" and self.checkpoint == found.checkpoint:
            return found  # led away from itself it would not be led at all
        if self.dataset not in ("", found.card.dataset):
            raise UserError(
                f"{OPTIONS[self.role]} {self.name!r} is of the data set {self.dataset!r}, and run "
                f"{found.card.name!r} of {found.card.dataset!r}; sweep one with --dataset."
            )
        config = self.config
        if not self.sigma_data_known:
            update = {"sigma_data": found.method.config.sigma_data}
            config = config.model_copy(update=update)
        own = found.method
        try:
            method = own.with_null(config) if self.role == "null" else own.with_weak(config)
            with torch.device("meta"):
                method.build()
        except ValueError as error:
            raise UserError(
                f"{OPTIONS[self.role]} {self.name!r} cannot be {_PARTS[self.role]} of "
                f"{found.card.name!r}: {error}."
            ) from None
        if self.role == "null":
            return replace(
                found, method=method, null_weights=self.weights, null_checkpoint=self.checkpoint
            )
        return replace(
            found, method=method, weak_weights=self.weights, weak_checkpoint=self.checkpoint
        )


def find_second(role: Role, name: str, experiment: Experiment) -> SecondNetwork:
    """The weights of an edm run of this experiment by name, of one by folder, or of a file."""
    for folder in (experiment.runs / name, Path(name)):
        if (folder / CARD).exists():
            return of_run(role, name, folder)
    path = Path(name)
    if path.suffix == ".safetensors" and path.is_file():
        return _of_file(role, name, path)
    runs = [card.name for card in trained_runs(experiment) if card.method == EDM.name]
    raise UserError(
        f"{OPTIONS[role]} {name!r} is no edm run of this experiment (it has: "
        f"{', '.join(runs) or 'none yet'}), no run's folder and no .safetensors file.",
        code=2,
    )


def find_seconds(
    experiment: Experiment, *, null: str | None, weak: str | None
) -> tuple[SecondNetwork, ...]:
    """The networks that the two options name, where they are given."""
    named: tuple[tuple[Role, str | None], ...] = (("null", null), ("weak", weak))
    return tuple(find_second(role, name, experiment) for role, name in named if name)


def refuse_unused(seconds: Sequence[SecondNetwork], targets: Sequence[Target]) -> None:
    """UserError for a network that joined none of the runs, since none is of edm."""
    if seconds and not any(isinstance(found.method, EDM) for found in targets):
        methods = ", ".join(sorted({found.card.method for found in targets}))
        raise UserError(
            f"{OPTIONS[seconds[0].role]} is for runs of edm, and those here are of {methods}.",
            code=2,
        )


def of_run(role: Role, name: str, folder: Path) -> SecondNetwork:
    """The network of a finished edm run by its folder; `name` is how it was asked for."""
    card = read_card(folder)
    if card.method != EDM.name:
        raise UserError(f"{OPTIONS[role]} {name!r} is a run of {card.method}, not of edm.")
    weights = folder / WEIGHTS
    if not weights.exists():
        raise UserError(f"Run {name!r} is unfinished: train it to its end first.")
    try:
        config = EDMConfig.model_validate(card.config)
    except ValidationError as error:
        raise UserError(
            f"Run {name!r} has settings that this version of edm does not take: {explain(error)}."
        ) from None
    return SecondNetwork(role, name, weights, sha256(weights), config, True, card.dataset)


def _of_file(role: Role, name: str, path: Path) -> SecondNetwork:
    from bench.training.importing.architecture import infer
    from bench.training.importing.source import read_source

    found = infer(read_source(path).shapes, "model.")
    # A file of weights alone cannot say whether labels were dropped; naming it here says so.
    config = EDMConfig(net=found.net, null_label=True)
    return SecondNetwork(role, name, path, sha256(path), config, False, "")
