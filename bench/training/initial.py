"""The weights that a run starts from, and the teacher that it distils."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import Dataset
from bench.experiment.place import Experiment
from bench.system.errors import UserError
from bench.system.files import sha256
from bench.training.card import (
    RunCard,
    locate_weights,
    make_card,
    make_method,
    method_class,
)
from bench.training.checkpoint import load_into, load_weights
from bench.training.presets import AUTO
from bench.training.step import build_nets
from methods import Method, Teaches
from methods.warm_start import fourier_scale

NO_INIT = "none"


@dataclass(frozen=True)
class FoundWeights:
    """Weights with the name and card of their run; a file has no card."""

    run: str
    checkpoint: str
    weights: Mapping[str, Tensor]
    card: RunCard | None = None


@dataclass(frozen=True)
class Teacher:
    """The frozen denoiser (x, sigma, labels) -> denoised of a trained run."""

    method: Teaches
    nets: nn.Module

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma, labels), as methods call it."""
        return self.method.denoise(self.nets, x, sigma, labels)


def find_weights(option: str, name: str, experiment: Experiment) -> FoundWeights:
    """Weights of a run by name or folder, or of a file; `option` is the option that named it."""
    also = f" and not {NO_INIT!r}" if option == "--init-from" else ""
    path, card = locate_weights(option, name, experiment, also=also)
    run = path.name if card is None else card.name
    return FoundWeights(run, sha256(path), load_weights(path), card)


def check_frequencies(card: RunCard, start: FoundWeights) -> None:
    """UserError if the card has another scale of noise features than the weights to start from."""
    scale = fourier_scale(start.weights)
    net = card.config.get("net", {})
    # Of few frequencies the scale is only roughly known.
    if scale and net.get("arch") == "ncsnpp" and not 0.25 < scale / net["fourier_scale"] < 4:
        raise UserError(
            f"{start.run} has noise features of scale {scale:.2g}, which are copied, and "
            f"{card.name} would have {net['fourier_scale']:g}: add --set net.fourier_scale="
            f"{scale:.2g}, or drop --init-from.",
            code=2,
        )


def has_preset(method: str, preset: str) -> bool:
    """Whether a method can be trained with a preset of this name."""
    cls = method_class(method)
    return preset in cls.presets or (preset == AUTO and cls.trains)


def source_preset(method: str, preset: str | None) -> str | None:
    """`preset` if `method` has it, else None: the preset of a run that another starts from."""
    return preset if preset is not None and has_preset(method, preset) else None


def network_settings(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides that a run shares with the run that it starts from or distils."""
    return {key: value for key, value in overrides.items() if key.startswith("net.")}


def teacher_card(
    method: str, data: Dataset, preset: str | None, overrides: Mapping[str, Any]
) -> RunCard:
    """The card of the run that a method distils by default: same data, preset and network."""
    return make_card(
        method,
        data=data,
        preset=source_preset(method, preset),
        overrides=network_settings(overrides),
    )


def make_teacher(
    student: type[Method[Any]],
    card: RunCard,
    data: Dataset,
    weights: Mapping[str, Tensor] | None,
    device: torch.device,
) -> Teacher:
    """The denoiser of `card` on `device`, with `weights` or, for measurements, untrained.

    UserError with the reason if the run cannot teach `student`.
    """
    wanted = student.wants_teacher
    if card.method != wanted:
        raise UserError(
            f"{student.name} distils a run of {wanted}, but {card.name!r} is one of "
            f"{card.method}: name another with --teacher.",
            code=2,
        )
    method = make_method(card, data)
    if not isinstance(method, Teaches):
        raise UserError(
            f"{student.name} cannot distil {card.name!r}: {card.method} offers no denoiser."
        )
    reason = method.cannot_teach()
    if reason is not None:
        raise UserError(
            f"{student.name} cannot distil {card.name!r}: {reason}. Train a teacher with a null "
            "label (--set label_dropout=0.1), and name it with --teacher.",
            code=2,
        )
    nets = build_nets(method, card.seed)
    if weights is not None:
        load_into(nets, weights, f"teacher {card.name}")
    return Teacher(method, nets.to(device).eval().requires_grad_(False))
