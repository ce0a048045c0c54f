"""A second network as the unconditional branch of classifier-free guidance.

Networks trained with labels always, as EDM's published ones are, have no output without a class;
guidance then takes it from another, usually unconditional, network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError

from bench.errors import UserError, explain
from bench.experiment import Experiment
from bench.files import sha256
from bench.plan import Target
from bench.runs import CARD, WEIGHTS, read_card, trained_runs
from methods import EDM
from methods.edm import EDMConfig


@dataclass(frozen=True)
class NullBranch:
    """Weights of an edm network, and the settings it has."""

    name: str
    weights: Path
    checkpoint: str
    config: EDMConfig
    sigma_data_known: bool
    """False where it is to be that of the run that the branch joins."""
    dataset: str
    """'' where it is not known."""

    def join(self, found: Target) -> Target:
        """`found` with this as its unconditional branch; runs of other methods are left alone."""
        if not isinstance(found.method, EDM):
            return found
        if self.dataset not in ("", found.card.dataset):
            raise UserError(
                f"--null-checkpoint {self.name!r} is of the data set {self.dataset!r}, and run "
                f"{found.card.name!r} of {found.card.dataset!r}; sweep one with --dataset."
            )
        config = self.config
        if not self.sigma_data_known:
            update = {"sigma_data": found.method.config.sigma_data}
            config = config.model_copy(update=update)
        try:
            method = found.method.with_null(config)
            with torch.device("meta"):
                method.build()
        except ValueError as error:
            raise UserError(
                f"--null-checkpoint {self.name!r} cannot be the unconditional branch of "
                f"{found.card.name!r}: {error}."
            ) from None
        return replace(
            found, method=method, null_weights=self.weights, null_checkpoint=self.checkpoint
        )


def find_null(name: str, experiment: Experiment) -> NullBranch:
    """The weights of an edm run of this experiment by name, of one by folder, or of a file."""
    for folder in (experiment.runs / name, Path(name)):
        if (folder / CARD).exists():
            return _of_run(name, folder)
    path = Path(name)
    if path.suffix == ".safetensors" and path.is_file():
        return _of_file(name, path)
    runs = [card.name for card in trained_runs(experiment) if card.method == EDM.name]
    raise UserError(
        f"--null-checkpoint {name!r} is no edm run of this experiment (it has: "
        f"{', '.join(runs) or 'none yet'}), no run's folder and no .safetensors file.",
        code=2,
    )


def _of_run(name: str, folder: Path) -> NullBranch:
    card = read_card(folder)
    if card.method != EDM.name:
        raise UserError(f"--null-checkpoint {name!r} is a run of {card.method}, not of edm.")
    weights = folder / WEIGHTS
    if not weights.exists():
        raise UserError(f"Run {name!r} is unfinished: train it to its end first.")
    try:
        config = EDMConfig.model_validate(card.config)
    except ValidationError as error:
        raise UserError(
            f"Run {name!r} has settings that this version of edm does not take: {explain(error)}."
        ) from None
    return NullBranch(name, weights, sha256(weights), config, True, card.dataset)


def _of_file(name: str, path: Path) -> NullBranch:
    from bench.importing.architecture import infer
    from bench.importing.source import read_source

    found = infer(read_source(path).shapes, "model.")
    # A file of weights alone cannot say whether labels were dropped; naming it here says so.
    config = EDMConfig(net=found.net, null_label=True)
    return NullBranch(name, path, sha256(path), config, False, "")
