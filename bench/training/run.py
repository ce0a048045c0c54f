"""A run: its card, data, method and weights, and networks beside its own, ready for sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import Dataset
from bench.experiment.place import Experiment
from bench.system.errors import UserError
from bench.system.files import sha256
from bench.training.checkpoint import check_size, load_into, load_weights
from bench.training.extra_network import OPTIONS, ExtraNetwork, Role
from bench.training.runs import WEIGHTS, RunCard, make_method
from methods import EDM, Method

_PARTS: Mapping[Role, str] = {"null": "the unconditional branch", "weak": "the weaker network"}


@dataclass(frozen=True)
class Run:
    """A run ready for sampling: its settings, data, method, and the file and hash of its weights.

    A method that needs no training has no weights: None and ''.
    """

    card: RunCard
    data: Dataset
    method: Method[Any]
    weights: Path | None
    checkpoint: str
    extra_networks: Mapping[Role, ExtraNetwork] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name that is unique in its experiment."""
        return self.card.name

    def extra_checkpoint(self, role: Role) -> str:
        """SHA-256 of an extra network's weights, '' where the run has none in this role."""
        network = self.extra_networks.get(role)
        return "" if network is None else network.checkpoint

    def join(self, *networks: ExtraNetwork) -> Run:
        """The run with the networks that serve it: only edm uses any. UserError for a misfit."""
        run = self
        for network in networks:
            run = run._join(network)
        return run

    def _join(self, network: ExtraNetwork) -> Run:
        own, role, option = self.method, network.role, OPTIONS[network.role]
        if not isinstance(own, EDM):
            return self
        if role == "weak" and network.checkpoint == self.checkpoint:
            return self  # a network leads nowhere from itself
        if network.dataset not in ("", self.card.dataset):
            raise UserError(
                f"{option} {network.name!r} is of the data set {network.dataset!r}, and run "
                f"{self.name!r} of {self.card.dataset!r}; sweep one with --dataset."
            )
        config = network.config
        if not network.sigma_data_known:
            config = config.model_copy(update={"sigma_data": own.config.sigma_data})
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
        return Run(card, data, method, None, "")
    weights = experiment.runs / card.name / WEIGHTS
    if not weights.exists():
        return None
    return Run(card, data, method, weights, sha256(weights))


def refuse_unused(networks: Sequence[ExtraNetwork], runs: Sequence[Run]) -> None:
    """UserError for a network that joined none of the runs, since none is of edm."""
    if networks and not any(isinstance(run.method, EDM) for run in runs):
        methods = ", ".join(sorted({run.card.method for run in runs}))
        raise UserError(
            f"{OPTIONS[networks[0].role]} is for runs of edm, and those here are of {methods}.",
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
    # Rows carry the hash of the plan, which may be days old; a run trained anew is another one.
    weights = load_weights(path)
    if sha256(path) != checkpoint:
        raise UserError(
            f"{path} was replaced since this command read it, as by a new training. Run the same "
            "command to continue with the new file."
        )
    return weights
