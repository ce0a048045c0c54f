"""Networks of diffusers with class labels, imported from folders that its save_pretrained wrote.

diffusers is optional and takes seconds to import, so it is imported where it is used. Only its
classes are used: no file is read here, and no code of a folder is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.conversions import from_eps, from_sample, from_v, table_time
from methods.dit import Timed
from methods.guidance import Guidance
from methods.pretrained import PretrainedConfig
from methods.registry import register
from methods.settings import Beta, Preset, Settings
from methods.spec import DataSpec

NEEDED = "it needs diffusers: pip install 'guidance-bench[diffusers]'"
Kind = Literal["DiTTransformer2DModel", "Transformer2DModel", "UNet2DModel"]
Scalar = (
    bool
    | Annotated[int, Field(ge=-1, le=1 << 20)]
    | Annotated[float, Field(ge=-1e9, le=1e9)]
    | Annotated[str, Field(max_length=100)]
    | None
)
MOST = {"num_layers": 1000, "layers_per_block": 1000, "sample_size": 4096}
"""Limits of arguments that decide how much is built before parameters are counted."""


class DiffusersNet(Settings):
    """A class of diffusers with the arguments of its constructor, as in its config.json."""

    kind: Kind
    arguments: Mapping[
        Annotated[str, Field(max_length=100)],
        Scalar | Annotated[tuple[Scalar, ...], Field(max_length=64)],
    ]

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for name, most in MOST.items():
            value = self.arguments.get(name)
            if isinstance(value, int) and value > most:
                raise ValueError(f"{name} is at most {most}, got {value}")
        return self

    @property
    def embeddings(self) -> int:
        """The rows of its table of classes, 0 without one."""
        transformer = self.kind != "UNet2DModel"
        count = self.arguments.get("num_embeds_ada_norm" if transformer else "num_class_embeds")
        # Each transformer has one row more, whose index is num_embeds_ada_norm, for no class.
        return int(count) + transformer if isinstance(count, int) else 0

    @property
    def conditional(self) -> bool:
        """Whether it takes class labels."""
        return self.embeddings > 0


class Schedule(Settings):
    """The times of a model and their noise, under the names of diffusers' schedulers."""

    num_train_timesteps: int = Field(1000, ge=2, le=1 << 14)
    beta_start: float = Field(0.0001, ge=0, lt=1)
    beta_end: float = Field(0.02, ge=0, lt=1)
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid"] = (
        "linear"
    )
    trained_betas: tuple[Beta, ...] | None = Field(None, max_length=1 << 14)
    rescale_betas_zero_snr: bool = False
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    steps_offset: int = Field(0, ge=0, le=1 << 14)


class DiffusersConfig(PretrainedConfig):
    """A network of diffusers with its schedule, and the channels that are guided."""

    net: DiffusersNet
    schedule: Schedule
    prediction: Literal["eps", "v", "sample"] = Field(
        description="noise, sqrt(ab) noise - sqrt(1 - ab) x0, or x0"
    )
    timesteps: Literal["interpolated", "nearest"] = Field(
        "interpolated",
        description="time of a level between two of the table: in ln sigma, or the nearest "
        "one's, whose level then replaces it",
    )
    channels: Literal[3, "all"] = Field(
        "all", description="guided channels: all, as DiTPipeline, or the first 3, as DiT's authors"
    )
    times: Literal["grid", "own"] = Field(
        "grid", description="own: the scheduler's spacing of times instead of --grid"
    )
    sigma_min: float = Field(0.01001, gt=0)
    sigma_max: float = Field(157.4, gt=0)

    @model_validator(mode="after")
    def _whole_times(self) -> Self:
        learned = self.net.arguments.get("time_embedding_type") == "learned"
        if learned and self.timesteps == "interpolated":
            raise ValueError("a network with learned times takes whole ones: timesteps=nearest")
        return self


@cache
def diffusers_levels(schedule: Schedule) -> Tensor:
    """The levels (T,) of a schedule's times, ascending, float64.

    Those of diffusers, whose alpha_bar is float32. With zero terminal SNR the last one, infinity,
    is replaced by twice the one before. Raises ValueError unless the levels ascend.
    """
    from diffusers import DDPMScheduler

    betas = schedule.model_dump(exclude={"timestep_spacing", "steps_offset"})
    with torch.inference_mode(False), torch.device("cpu"):  # kept for later calls in any mode
        alpha_bar = DDPMScheduler(**betas).alphas_cumprod.double()
        levels: Tensor = ((1 - alpha_bar) / alpha_bar).sqrt()
        if schedule.rescale_betas_zero_snr:
            levels[-1] = 2 * levels[-2]
    if not levels.isfinite().all() or levels[0] <= 0 or (levels.diff() <= 0).any():
        raise ValueError("the noise of its schedule does not grow from time to time")
    return levels


class Labels(nn.Module):
    """A table of classes (N, D) that takes labels (B, K), zeros for null; linear in between.

    Replaces the tables of diffusers, which take an index. With N = K + 1, the last row is null's.
    """

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.weight = table.weight

    def forward(self, labels: Tensor) -> Tensor:
        """(B, K) => (B, D)."""
        null = 1 - labels.sum(1, keepdim=True)
        return torch.cat([labels, null], 1)[:, : len(self.weight)] @ self.weight


@register
class DiffusersModel(Timed):
    """An imported network of diffusers: noise, v or x0 at the times of a scheduler's table."""

    name = "diffusers"
    summary = "imported networks of diffusers with class labels, Heun sampler"
    config_type = DiffusersConfig
    presets: ClassVar[Mapping[str, Preset]] = {}

    @staticmethod
    def network(config: Any, data: DataSpec) -> nn.Module:
        """The class of diffusers, whose tables take labels (B, K)."""
        try:
            import diffusers
            from diffusers.models.embeddings import LabelEmbedding
        except ImportError:
            raise ValueError(NEEDED) from None
        net: DiffusersNet = config.net
        low, high = (float(diffusers_levels(config.schedule)[i]) for i in (0, -1))
        if not low <= config.sigma_min < config.sigma_max <= high:
            raise ValueError(
                f"its schedule has noise levels from {low:.6g} to {high:.6g}, got sigma_min "
                f"{config.sigma_min:g} and sigma_max {config.sigma_max:g}"
            )
        if net.conditional and net.embeddings - data.num_classes not in (0, 1):
            raise ValueError(
                f"it has {net.embeddings} embeddings of classes, and the data have "
                f"{data.num_classes} classes"
            )
        try:
            made: nn.Module = getattr(diffusers, net.kind)(**net.arguments)
        except Exception as error:  # it raises errors of many kinds for arguments that do not fit
            raise ValueError(f"diffusers cannot build it ({error})") from None
        for module in list(made.modules()):
            if isinstance(module, LabelEmbedding):
                module.embedding_table = Labels(module.embedding_table)
        if net.kind == "UNet2DModel" and net.conditional:
            made.class_embedding = Labels(cast(nn.Embedding, made.class_embedding))
        return made

    def own_levels(self, steps: int) -> Tensor:
        """Those of the times that its scheduler takes for so many steps."""
        return diffusers_levels(self.config.schedule)[self._own_times(steps)]

    def _own_times(self, steps: int) -> Tensor:
        from diffusers import DDIMScheduler

        known = {"num_train_timesteps", "timestep_spacing", "steps_offset"}
        scheduler = DDIMScheduler(**self.config.schedule.model_dump(include=known))
        scheduler.set_timesteps(steps)
        times: Tensor = scheduler.timesteps
        return times

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Needs diffusers, and no more steps than it has times."""
        if find_spec("diffusers") is None:
            return NEEDED
        if self.config.times == "own":
            last = self.config.schedule.num_train_timesteps - 1
            if steps > last + 1 or int(self._own_times(steps).max()) > last:
                return f"{steps} steps need later times than {last}, the last of its schedule"
        return super().supports(guidance, steps)

    def denoised(
        self, config: DiffusersConfig, net: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor
    ) -> Tensor:
        """D from the prediction; a learned variance is dropped."""
        levels = diffusers_levels(config.schedule).to(x.device)
        level = sigma.to(levels).reshape(-1).expand(len(x))
        time = table_time(level, levels)
        nearest = config.timesteps == "nearest"
        if nearest:
            time = time.round().long()
            level = levels[time]
        given = {"timestep": time if nearest else time.float()}
        if config.net.conditional:
            given["class_labels"] = labels.float()

        def predict(y: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            out: Tensor = net(y.float(), return_dict=False, **given)[0]
            return out[:, : y.shape[1]].to(y)

        convert: Mapping[str, Any] = {"eps": from_eps, "v": from_v, "sample": from_sample}
        denoised: Tensor = convert[config.prediction](predict)(x, level.to(x), labels)
        return denoised
