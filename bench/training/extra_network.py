"""An extra edm network beside a run's own: its unconditional branch, or a weaker one.

Networks trained with labels always, as EDM's published ones are, have no output without a class;
guidance then takes it from another, usually unconditional, network. Autoguidance leads away from
a network that is smaller or trained for less long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from bench.experiment.place import Experiment
from bench.system.errors import UserError, explain
from bench.system.files import sha256
from bench.training.card import CARD, WEIGHTS, read_card, trained_runs
from methods import EDM
from methods.edm import EDMConfig

Role = Literal["null", "weak"]

OPTIONS: Mapping[Role, str] = {"null": "--null-checkpoint", "weak": "--weak-checkpoint"}


@dataclass(frozen=True)
class ExtraNetwork:
    """Weights of an edm network, the settings it has, and what it is for."""

    role: Role
    name: str
    weights: Path
    checkpoint: str
    config: EDMConfig
    sigma_data_known: bool
    """False: use the setting of the run that this network is added to."""
    dataset: str
    """'' if unknown."""


def find_extra_network(role: Role, name: str, experiment: Experiment) -> ExtraNetwork:
    """The weights of an edm run of this experiment by name, of one by folder, or of a file."""
    for folder in (experiment.runs / name, Path(name)):
        if (folder / CARD).exists():
            return extra_network_of_run(role, name, folder)
    path = Path(name)
    if path.suffix == ".safetensors" and path.is_file():
        return _of_file(role, name, path)
    runs = [card.name for card in trained_runs(experiment) if card.method == EDM.name]
    raise UserError(
        f"{OPTIONS[role]} {name!r} is no edm run of this experiment (it has: "
        f"{', '.join(runs) or 'none yet'}), no run's folder and no .safetensors file.",
        code=2,
    )


def find_extra_networks(
    experiment: Experiment, *, null: str | None, weak: str | None
) -> tuple[ExtraNetwork, ...]:
    """The networks that the two options name, where they are given."""
    named: tuple[tuple[Role, str | None], ...] = (("null", null), ("weak", weak))
    return tuple(find_extra_network(role, name, experiment) for role, name in named if name)


def extra_network_of_run(role: Role, name: str, folder: Path) -> ExtraNetwork:
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
    return ExtraNetwork(role, name, weights, sha256(weights), config, True, card.dataset)


def _of_file(role: Role, name: str, path: Path) -> ExtraNetwork:
    from bench.training.importing.architecture import infer
    from bench.training.importing.source import read_source

    found = infer(read_source(path).shapes, "model.")
    # A file of weights alone cannot say whether labels were dropped; naming it here says so.
    config = EDMConfig(net=found.net, null_label=True)
    return ExtraNetwork(role, name, path, sha256(path), config, False, "")
