"""A function as a model: a denoiser from a user's file, sampled under every rule.

`model` declares the function, and `bench sweep --model FILE:NAME` samples it.
`docs/tutorials/own-model.md` has a complete file.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Batch, Denoiser, Progress
from methods.guided import GuidedMethod
from methods.rng import BatchRNG
from methods.rules.base import Branch, Networks
from methods.settings import Preset, Settings
from methods.spec import DataSpec

ROWS = 3
"""Rows with which a function is tried."""
APART = 0.02
"""Relative difference of a row in a batch and alone that is no rounding, also in bfloat16."""


class ModelConfig(Settings):
    """The sampling grid, EDM's by default."""

    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    rho: float = 7.0


@dataclass(frozen=True, eq=False)
class Model:
    """A function with its declaration: see `model`."""

    denoise: Denoiser
    name: str
    """Its method's name: those of file and function, such as mymodel.denoise."""
    file: Path
    shape: tuple[int, ...]
    classes: int
    null: bool
    weak: Denoiser | None
    weak_cost: float
    decode: Callable[[Tensor], Tensor] | None
    nets: tuple[nn.Module, ...]
    weights: tuple[Path, ...]
    checkpoint: str
    """SHA-256 of the `weights` when the file was imported, '' without any."""
    config: ModelConfig
    steps: int

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The function itself."""
        return self.denoise(x, sigma, labels)

    def __str__(self) -> str:
        """The value of --model."""
        return f"{self.file}:{self.denoise.__name__}"

    @property
    def changed(self) -> bool:
        """Whether a file of weights has changed since the import."""
        return self.checkpoint != _hash(self.weights)

    def method(self) -> type[OwnModel]:
        """A class for `METHODS`, whose code is that of the file."""
        function = self.denoise.__name__
        summary = inspect.getdoc(self.denoise) or f"a function of {self.file.name}"
        about = {
            "name": self.name,
            "summary": summary.splitlines()[0],
            "presets": AnyData(self.config, (self.steps,)),
            "model": self,
            "__module__": self.denoise.__module__,
        }
        return type(function, (OwnModel,), about)


def model(
    *,
    shape: Sequence[int],
    classes: int,
    null: bool,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    steps: int = 18,
    weak: Denoiser | None = None,
    weak_cost: float = 1.0,
    decode: Callable[[Tensor], Tensor] | None = None,
    nets: Sequence[nn.Module] = (),
    weights: Sequence[str | Path] = (),
) -> Callable[[Denoiser], Model]:
    """Declare a function `denoise(x, sigma, labels)` in a file to be a model.

    It gets x = x0 + sigma n (B, *shape) float32 in the units of the data, images in [-1, 1]; sigma
    (B,) float32 and > 0; labels (B, classes), one-hot, zeros for no class. It returns the denoised
    x (B, *shape). `methods.conversions` makes it from predictions of noise, v or a velocity.

    `null`: whether rows without a class were trained. `weak`: a weaker model for rules such as
    autoguidance, a function of the same kind, whose evaluation costs `weak_cost` of the own one.
    `decode`: from samples (B, *shape) to those of the data set, if these are latents. `nets`: its
    networks, which are moved to the device of a command and put in evaluation mode. `weights`: all
    files that it reads, relative to its own. Results are known by these and by its code.

    Raises FileNotFoundError for missing weights, and TypeError unless it is a function of a file.
    """

    def declare(denoise: Denoiser) -> Model:
        if not inspect.isfunction(denoise) or "<locals>" in denoise.__qualname__:
            raise TypeError("@model declares a function that a file defines with def at its top")
        file = getattr(sys.modules.get(denoise.__module__), "__file__", None)
        if file is None:
            raise TypeError(
                f"the function {denoise.__name__} must be in a file, also in a notebook: write its "
                "cell with %%writefile mymodel.py"
            )
        path = Path(file).resolve()
        files = tuple(path.parent / name for name in weights)
        for name, found in zip(weights, files, strict=True):
            if not found.is_file():
                raise FileNotFoundError(f"the weights {str(name)!r} of {denoise.__name__} are not "
                                        f"in {found.parent}")  # fmt: skip
        for net in nets:
            net.eval().requires_grad_(False)
        return Model(
            denoise, f"{path.stem}.{denoise.__name__}", path, tuple(shape), classes, null, weak,
            weak_cost, decode, tuple(nets), files, _hash(files),
            ModelConfig(sigma_min=sigma_min, sigma_max=sigma_max), steps,
        )  # fmt: skip

    return declare


def _hash(files: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest() if files else ""


class AnyData(Mapping[str, Preset]):
    """The same preset for a data set of any name. It lists none."""

    def __init__(self, config: ModelConfig, steps: tuple[int, ...]) -> None:
        self._config, self._steps = config, steps

    def __getitem__(self, name: str) -> Preset:
        return Preset(dataset=name, config=self._config, train=None, steps=self._steps)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class OwnModel(GuidedMethod[ModelConfig]):
    """The method of one `Model`, which needs no training; its subclasses are made by `model`."""

    trains: ClassVar[bool] = False
    config_type = ModelConfig
    model: ClassVar[Model]

    def __init__(self, config: ModelConfig, data: DataSpec) -> None:
        fault = _misfit(self.model, data) or _fault(self.model, config) or _undecoded(
            self.model, data
        )  # fmt: skip
        if fault:
            raise ValueError(fault)
        super().__init__(config, data)

    def build(self) -> nn.Module:
        """The declared networks."""
        return nn.ModuleList(self.model.nets)

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Not available: raises TypeError."""
        raise TypeError(f"{self.name} has nothing to train")

    @property
    def space(self) -> DataSpec:
        """The data, or latents of the declared shape."""
        return replace(self.data, shape=self.model.shape)

    def networks(self, nets: nn.Module, labels: Tensor) -> Networks:
        """The declared functions."""
        model = self.model
        main, weak = (None if f is None else _border(f) for f in (model.denoise, model.weak))
        assert main is not None
        return Networks(
            main=main,
            null=(lambda x, sigma: main(x, sigma, labels.new_zeros(len(x), model.classes)))
            if model.null
            else None,
            weak=weak,
            shared=model.null,
        )

    def finished(self, samples: Tensor) -> Tensor:
        """Decoded samples; images are clipped."""
        if self.model.decode is not None:
            samples = self.model.decode(samples).to(torch.float32)
        return super().finished(samples)

    def costs(self) -> dict[Branch, float]:
        """`weak_cost`."""
        return {} if self.model.weak is None else {"weak": self.model.weak_cost}

    def lacks(self, branch: Branch) -> str:
        """What is not declared."""
        if branch == "null" and not self.model.null:
            return f"{self.name} declares no null label (null=True)"
        if branch == "weak" and self.model.weak is None:
            return f"{self.name} declares no weaker model (weak=)"
        if branch in ("attention", "blocks"):
            return f"a function shows no {branch} of its network"
        return ""


def _border(function: Denoiser) -> Denoiser:
    """The function as the samplers call it: with x and sigma of float64, and one sigma."""

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        out = function(
            x.to(torch.float32), sigma.to(torch.float32).expand(len(x)), labels.to(torch.float32)
        )
        if x.requires_grad and not out.requires_grad:
            raise ValueError(
                "the rule needs the slope of the denoiser, whose output has none: do not switch "
                "gradients off in the function"
            )
        return out.to(x)

    return denoise


def _misfit(model: Model, data: DataSpec) -> str:
    """Why a model cannot be for this data, or ''."""
    if model.classes != data.num_classes:
        return f"it declares {model.classes} classes, and the data have {data.num_classes}"
    if model.decode is None and model.shape != data.shape:
        return f"it declares samples {model.shape} without decode=, and the data have {data.shape}"
    return ""


@functools.cache
def _fault(model: Model, config: ModelConfig) -> str:
    """What is wrong with the function or its weaker model, tried on three noisy rows, or ''."""
    device = next((p.device for net in model.nets for p in net.parameters()), "cpu")
    low, high = config.sigma_min, config.sigma_max
    sigma = torch.tensor([high, math.sqrt(low * high), low], device=device)
    noise = torch.randn(ROWS, *model.shape, generator=torch.Generator().manual_seed(0)).to(device)
    x = sigma.reshape(-1, *[1] * len(model.shape)) * noise
    labels = torch.eye(model.classes, device=device)[torch.arange(ROWS) % model.classes]
    labels[1] *= float(not model.null)
    for name, function in (("it", model.denoise), ("its weaker model", model.weak)):
        if function is None:
            continue
        with torch.inference_mode():
            fault = _fault_of(function, x, sigma, labels)
        if fault:
            return f"{name} {fault}"
    return ""


def _fault_of(function: Denoiser, x: Tensor, sigma: Tensor, labels: Tensor) -> str:
    alone = []
    for row in range(len(x)):
        one = slice(row, row + 1)
        try:
            out = function(x[one], sigma[one], labels[one])
        except Exception as error:  # the code of a user may fail in any way
            return f"fails at sigma = {sigma[row]:g} ({type(error).__name__}: {error})"
        if not isinstance(out, Tensor) or not out.dtype.is_floating_point:
            kind = out.dtype if isinstance(out, Tensor) else type(out).__name__
            return f"returns {kind}: return a tensor of float32"
        if out.shape != x[one].shape:
            return f"returns {tuple(out.shape)} for x {tuple(x[one].shape)}: return the denoised x"
        if not out.isfinite().all():
            return f"returns NaN or infinity at sigma = {sigma[row]:g}"
        alone.append(out.double())
    mixes = (
        "mixes the rows of a batch: each has its own sigma, so reshape sigma (B,) to "
        f"({', '.join(['B', *['1'] * (x.ndim - 1)])}) beside x"
    )
    try:
        whole = function(x, sigma, labels).double()
    except Exception as error:
        return f"{mixes} ({type(error).__name__}: {error})"
    if whole.shape != x.shape:
        return f"returns {tuple(whole.shape)} for x {tuple(x.shape)}: return the denoised x"
    gaps = [(a - b).norm() > APART * b.norm() for a, b in zip(whole, torch.cat(alone), strict=True)]
    return mixes if any(gaps) else ""


def _undecoded(model: Model, data: DataSpec) -> str:
    """What is wrong with the decoder of a model, or ''."""
    if model.decode is None:
        return ""
    device = next((p.device for net in model.nets for p in net.parameters()), "cpu")
    with torch.inference_mode():
        shape = tuple(model.decode(torch.zeros(1, *model.shape, device=device)).shape[1:])
    return (
        "" if shape == data.shape else f"its decode= gives {shape}, and the data have {data.shape}"
    )
