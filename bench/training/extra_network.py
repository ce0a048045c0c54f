"""An extra network of a run, of the same method: its unconditional branch, or a weaker network.

Networks that were always trained with labels, such as EDM's published ones, have no output without
a class: guidance takes it from another, usually unconditional, network. Autoguidance leads away
from a network that is smaller or was trained for fewer steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.experiment.place import Experiment
from bench.system.errors import UserError
from bench.system.files import sha256
from bench.training.card import WEIGHTS, config_of, locate_weights, read_card
from methods import EDM, METHODS
from methods.edm import EDMConfig
from methods.pretrained import Pretrained, PretrainedConfig

Role = Literal["null", "weak"]

OPTIONS: Mapping[Role, str] = {"null": "--null-checkpoint", "weak": "--weak-checkpoint"}


@dataclass(frozen=True)
class ExtraNetwork:
    """The weights, settings and role of a network of `method`."""

    role: Role
    method: str
    name: str
    weights: Path
    checkpoint: str
    config: EDMConfig | PretrainedConfig
    sigma_data_known: bool
    """False: use the setting of the run that this network is added to."""
    dataset: str
    """'' if unknown."""


def paired_methods() -> tuple[str, ...]:
    """The methods whose runs take extra networks, which are of the same method."""
    imported = (name for name, cls in METHODS.items() if issubclass(cls, Pretrained))
    return (EDM.name, *sorted(imported))


def find_extra_network(role: Role, name: str, experiment: Experiment) -> ExtraNetwork:
    """The weights of a run of such a method by name or folder, or of a file of edm."""
    path, card = locate_weights(OPTIONS[role], name, experiment, *paired_methods())
    if card is None:
        return _of_file(role, name, path)
    return extra_network_of_run(role, name, path.parent)


def find_extra_networks(
    experiment: Experiment, *, null: str | None, weak: str | None
) -> tuple[ExtraNetwork, ...]:
    """The networks that --null-checkpoint and --weak-checkpoint name."""
    named: tuple[tuple[Role, str | None], ...] = (("null", null), ("weak", weak))
    return tuple(find_extra_network(role, name, experiment) for role, name in named if name)


def extra_network_of_run(role: Role, name: str, folder: Path) -> ExtraNetwork:
    """The network of a finished run in `folder`; `name` is how the user named it."""
    card = read_card(folder)
    if card.method not in paired_methods():
        raise UserError(
            f"{OPTIONS[role]} {name!r} is a run of {card.method}, not of "
            f"{', '.join(paired_methods())}."
        )
    weights = folder / WEIGHTS
    if not weights.exists():
        raise UserError(f"Run {name!r} is unfinished: train it to the end first.")
    config = config_of(card)
    assert isinstance(config, EDMConfig | PretrainedConfig)
    return ExtraNetwork(
        role, card.method, name, weights, sha256(weights), config, True, card.dataset
    )


def _of_file(role: Role, name: str, path: Path) -> ExtraNetwork:
    from bench.training.importing.architecture import infer
    from bench.training.importing.source import read_source

    found = infer(read_source(path).shapes, "model.")
    # Weights do not show whether labels were dropped: a user who names this file says so.
    config = EDMConfig(net=found.net, null_label=True)
    return ExtraNetwork(role, EDM.name, name, path, sha256(path), config, False, "")
