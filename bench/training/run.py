"""Runs: which one a command means, and one ready for sampling with its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import Dataset
from bench.data.decoder import FOLDER, IDENTITY, DecoderSource, decoder_source
from bench.data.find import find_dataset
from bench.data.stand_in import RandomImages
from bench.experiment.place import Experiment
from bench.experiment.suite import flags
from bench.system.errors import UserError, unknown
from bench.system.files import sha256
from bench.training.card import (
    WEIGHTS,
    RunCard,
    decoder_name,
    make_card,
    make_method,
    method_class,
    trained_runs,
    unregistered,
)
from bench.training.checkpoint import check_size, load_into, load_weights
from bench.training.extra_network import OPTIONS, ExtraNetwork, Role
from methods import EDM, METHODS, Method
from methods.own_model import OwnModel
from methods.pretrained import Pretrained

_PARTS: Mapping[Role, str] = {"null": "the unconditional branch", "weak": "the weaker network"}


@dataclass(frozen=True)
class Run:
    """A run ready for sampling: settings, data, method, and the file and hash of its weights.

    A method that needs no training has no file here: None, and '' or what its model declares.
    """

    card: RunCard
    data: Dataset
    method: Method[Any]
    weights: Path | None
    checkpoint: str
    extra_networks: Mapping[Role, ExtraNetwork] = field(default_factory=dict)
    decoder: DecoderSource | None = None
    """What makes images of its samples, if these are latents."""

    @property
    def name(self) -> str:
        """Its name, unique in its experiment."""
        return self.card.name

    @property
    def undecoded(self) -> str:
        """Why its samples give no images of its data set, or ''."""
        decoder, images = self.decoder, self.data.spec.shape
        if decoder is None:
            return ""
        if not decoder.is_there:
            return (
                f"its samples are latents, and pixels need the decoder {decoder.name!r}: import it "
                "again with --decoder FOLDER"
            )
        made = decoder.image_shape(self.method.data.shape)
        if made == images:
            return ""
        return f"its decoder makes images {made}, and {self.data.name} has {images}"

    @property
    def decoder_hash(self) -> str:
        """The hash of its decoder, '' without its files."""
        return self.decoder.hash if self.decoder is not None and self.decoder.is_there else ""

    def extra_checkpoint(self, role: Role) -> str:
        """SHA-256 of an extra network's weights, '' if the run has none in this role."""
        network = self.extra_networks.get(role)
        return "" if network is None else network.checkpoint

    def join(self, *networks: ExtraNetwork) -> Run:
        """The run with those of its method; UserError for one that does not fit."""
        run = self
        for network in networks:
            run = run._join(network)
        return run

    def _join(self, network: ExtraNetwork) -> Run:
        own, role, option = self.method, network.role, OPTIONS[network.role]
        if not isinstance(own, METHODS[network.method]):
            return self
        if role == "weak" and network.checkpoint == self.checkpoint:
            return self  # autoguidance by the run's own network has no effect
        if network.dataset not in ("", self.card.dataset):
            raise UserError(
                f"{option} {network.name!r} is for the data set {network.dataset!r}, and run "
                f"{self.name!r} for {self.card.dataset!r}: sweep one of them with --dataset."
            )
        config: Any = network.config
        if not network.sigma_data_known:
            config = config.model_copy(update={"sigma_data": own.config.sigma_data})
        assert isinstance(own, EDM | Pretrained)
        try:
            method = own.with_null(config) if role == "null" else own.with_weak(config)
            with torch.device("meta"):
                method.build()
        except ValueError as error:
            raise UserError(
                f"{option} {network.name!r} cannot be {_PARTS[role]} of {self.name!r}: {error}."
            ) from None
        return replace(self, method=method, extra_networks={**self.extra_networks, role: network})


def open_run(card: RunCard, data: Dataset, experiment: Experiment) -> Run | None:
    """The run ready for sampling, or None while its training is unfinished."""
    method = make_method(card, data)
    if not method.trains:
        own = method.model.checkpoint if isinstance(method, OwnModel) else ""
        return Run(card, data, method, None, own)
    weights = experiment.runs / card.name / WEIGHTS
    if not weights.exists():
        return None
    decoder = _find_decoder(card, data, weights.parent)
    if decoder is not None and isinstance(data, RandomImages) and decoder.is_there:
        data = RandomImages(replace(data.spec, shape=decoder.image_shape(card.shape)))
    return Run(card, data, method, weights, sha256(weights), decoder=decoder)


def _find_decoder(card: RunCard, data: Dataset, folder: Path) -> DecoderSource | None:
    """The decoder in the folder of a run or, if that has none of this name, of its data set."""
    name, of_data = decoder_name(card), data.decoder
    if not name:
        return of_data
    own = decoder_source(name, None if name == IDENTITY else folder / FOLDER)
    return of_data if of_data is not None and of_data.name == name and not own.is_there else own


def refuse_unused(networks: Sequence[ExtraNetwork], runs: Sequence[Run]) -> None:
    """UserError for an extra network of another method than all runs, which could not use it."""
    for network in networks:
        if not any(isinstance(run.method, METHODS[network.method]) for run in runs):
            methods = ", ".join(sorted({run.card.method for run in runs}))
            raise UserError(
                f"{OPTIONS[network.role]} is for runs of {network.method}, and these are of "
                f"{methods}.",
                code=2,
            )


def load_nets(run: Run, device: torch.device) -> nn.Module:
    """The networks of a run with their averaged weights, ready for sampling.

    UserError if a file changed since the run was opened.
    """
    files: list[tuple[str, Path, str]] = []
    if run.weights is not None:
        files = [("", run.weights, run.checkpoint)]
        for role, network in run.extra_networks.items():
            files.append((f"{role}.", network.weights, network.checkpoint))
    with torch.random.fork_rng(devices=[]):
        if files:
            check_size(run.method.build, [path for _, path, _ in files])
        nets = run.method.build()
    if files:
        weights: dict[str, Tensor] = {}
        for prefix, path, checkpoint in files:
            loaded = _load_unchanged(path, checkpoint)
            weights |= {f"{prefix}{key}": value for key, value in loaded.items()}
        load_into(nets, weights, " and ".join(str(path) for _, path, _ in files))
    return nets.to(device).eval().requires_grad_(False)


def _load_unchanged(path: Path, checkpoint: str) -> dict[str, Tensor]:
    # Rows carry the hash that was planned, which may be days old; a retrained run differs.
    weights = load_weights(path)
    if sha256(path) != checkpoint:
        raise UserError(
            f"{path} changed since this command read it, for example by a new training. Run the "
            "same command to continue with the new file."
        )
    return weights


def no_run(
    experiment: Experiment,
    method: str | None = None,
    dataset: str | None = None,
    suite: str | None = None,
) -> UserError:
    """The error for a missing trained run, with the command that trains it."""
    of = (f" of {method}" if method else "") + (f" on {dataset}" if dataset else "")
    command = train_command(experiment, method or "igct", dataset, suite)
    return UserError(f"There is no trained run{of} in {experiment.runs}. Train one: {command}.")


def train_command(
    experiment: Experiment, method: str, dataset: str | None = None, suite: str | None = None
) -> str:
    """The command that trains a method, or a suite's runs, in the same experiment."""
    what = "" if suite else f" --method {method}" + (f" --dataset {dataset}" if dataset else "")
    return f"bench train{what}{flags(experiment, suite)}"


def fitting_runs(
    experiment: Experiment, run: str | None, method: str | None, dataset: str | None
) -> list[RunCard]:
    """The trained runs with this name, method and data set; UserError if there are none."""
    if method is not None:
        method_class(method)
    cards = trained_runs(experiment)
    if dataset is not None and not any(card.dataset == dataset for card in cards):
        find_dataset(dataset)
    if run is not None and cards:
        named = [card for card in cards if card.name == run]
        if not named:
            raise unknown("run", run, [card.name for card in cards])
        for option, asked, own in (
            ("--method", method, named[0].method),
            ("--dataset", dataset, named[0].dataset),
        ):
            if asked not in (None, own):
                raise UserError(f"Run {run!r} has {own!r}, not {option} {asked!r}.", code=2)
        return named
    fitting = [c for c in cards if method in (None, c.method) and dataset in (None, c.dataset)]
    if not fitting and method is not None and not method_class(method).trains:
        raise UserError(
            f"{method} is used without training and has no runs: choose another method."
        )
    if not fitting:
        raise no_run(experiment, method, dataset)
    return fitting


def find_run(
    experiment: Experiment, run: str | None, method: str | None, dataset: str | None
) -> RunCard:
    """The run by name, or the only one of this method and data set; else UserError.

    A method without training has a run on each data set of its presets. A run's own data set may
    be missing.
    """
    if run is None and method is not None and not method_class(method).trains:
        return _untrained(method, dataset)
    found = fitting_runs(experiment, run, method, dataset)
    if len(found) > 1:
        names = ", ".join(card.name for card in found)
        raise UserError(f"Several runs fit; name one with --run: {names}.", code=2)
    (card,) = found
    if not card.shape or card.method not in METHODS:
        reason = unregistered(card)
        if reason is not None:
            raise UserError(f"Run {card.name!r} cannot be sampled: {reason}.")
    return card


def _untrained(method: str, dataset: str | None) -> RunCard:
    names = sorted({preset.dataset for preset in method_class(method).presets.values()})
    if dataset is None and len(names) != 1:
        raise UserError(
            f"{method} is for several data sets; name one with --dataset"
            f"{': ' * bool(names)}{', '.join(names)}.",
            code=2,
        )
    return make_card(method, data=find_dataset(dataset or names[0]))
