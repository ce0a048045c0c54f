"""Typed settings: frozen, with JSON round trip; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny

from methods.spec import DataSpec

Solver = Literal["heun", "euler", "dpmpp-2m", "sde"]
Grid = Literal["edm", "linear", "cosine"]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """Base of every configuration in the project."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainSettings(Settings):
    """How a network is trained. The network itself is part of the method's configuration."""

    iterations: int = Field(ge=1, le=1 << 40)
    batch: int = Field(ge=1, le=1 << 24, description="images per step, over all processes")
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=1 << 24,
        description="images per forward pass of a process; None: its whole share",
    )
    lr: float = Field(gt=0)
    optimizer: Literal["radam", "adam"] = "radam"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    warmup: int = Field(0, ge=0, le=1 << 40, description="steps of linear warm-up")
    decay_from: float = Field(
        1.0, ge=0, le=1, description="fraction of training after which lr decays"
    )
    final_lr: float = Field(1.0, gt=0, le=1, description="last lr as a fraction of lr")
    ema: float = Field(0.999, ge=0, lt=1)
    ema_ramp: bool = Field(True, description="limit the EMA to (1 + n) / (10 + n) after n steps")
    ema_share: float | None = Field(
        None, gt=0, le=1, description="limit the EMA's half-life to this share of the images seen, "
        "instead of ema_ramp; EDM: .05",
    )  # fmt: skip
    checkpoint_every: int = Field(200, ge=1, le=1 << 40)


class Preset(Settings):
    """A configuration that is known to work on a data set, with its expected results."""

    dataset: str
    shape: tuple[int, int, int] | None = Field(
        None, description="(C, H, W), for image data sets that are not built in"
    )
    num_classes: int | None = Field(None, description="number of classes of such a data set")
    config: SerializeAsAny[Settings]
    train: TrainSettings | None = Field(description="None: nothing to train")
    steps: tuple[int, ...] = Field(description="sampling steps that a sweep uses")
    init_from: str | None = Field(
        None, description="method of the run that gives the initial weights"
    )
    expected: Mapping[str, str] = Field(default_factory=dict)
    full_size: bool = Field(
        False, description="of published size, for days on GPUs: other data sets must name it"
    )

    def fits(self, spec: DataSpec) -> bool:
        """Whether it can be used for data of `spec`: its own data set, or images of its shape.

        The number of classes may differ: it changes only the width of the label input.
        """
        return spec.name == self.dataset or spec.shape == self.shape


CIFAR10 = DataSpec("cifar10", (3, 32, 32), 10)
CIFAR16 = DataSpec("cifar16", (3, 16, 16), 10)
"""CIFAR-10 at half its resolution, for CPUs: bench data prepare --size 16 --resize box."""
IMAGENET64 = DataSpec("imagenet64", (3, 64, 64), 1000)


def image_preset(
    images: DataSpec,
    config: Settings,
    train: TrainSettings,
    *,
    steps: tuple[int, ...],
    init_from: str | None = None,
    expected: Mapping[str, str] | None = None,
    full_size: bool = False,
) -> Preset:
    """A preset for all image data sets with this shape and number of classes."""
    channels, height, width = images.shape
    return Preset(
        dataset=images.name,
        shape=(channels, height, width),
        num_classes=images.num_classes,
        config=config,
        train=train,
        steps=steps,
        init_from=init_from,
        expected=expected or {},
        full_size=full_size,
    )


def ascending(what: str, low: float, high: float, *, strict: bool = True) -> None:
    """Raise ValueError unless `low` < `high`, or `low` <= `high` if not `strict`."""
    if low > high or (strict and low == high):
        raise ValueError(f"{what} must ascend, got {low:g} and {high:g}")
