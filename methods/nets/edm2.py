"""EDM2's magnitude-preserving U-Net and its denoiser, with the published parameter names.

Source: Karras et al. (2024), "Analyzing and Improving the Training Dynamics of Diffusion Models".
No layer has a bias or a norm with weights: layers keep the magnitude of their input, because their
weights are normalised whenever they are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-4
RESIDUAL_BALANCE = 0.3
SKIP_BALANCE = 0.5
LABEL_BALANCE = 0.5
LOGVAR_WIDTH = 128


def normalize(x: Tensor, dims: Sequence[int]) -> Tensor:
    """`x` divided by its root mean square over `dims`, in float32, plus 1e-4."""
    count = math.prod(x.shape[dim] for dim in dims)
    norm: Tensor = torch.linalg.vector_norm(x, dim=tuple(dims), keepdim=True, dtype=torch.float32)
    scale: Tensor = (EPS + norm / math.sqrt(count)).to(x.dtype)
    return x / scale


def mp_silu(x: Tensor) -> Tensor:
    """SiLU that preserves the magnitude of unit Gaussians."""
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Interpolation from `a` to `b` that preserves the magnitude of independent inputs."""
    return torch.lerp(a, b, t) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Tensor, b: Tensor, t: float = SKIP_BALANCE) -> Tensor:
    """Channels of `a` and `b` (B, C, H, W), which contribute with weights 1 - t and t."""
    n_a, n_b = a.shape[1], b.shape[1]
    scale = math.sqrt((n_a + n_b) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale * (1 - t) / math.sqrt(n_a)), b * (scale * t / math.sqrt(n_b))], 1)


class MPConv(nn.Module):
    """A linear layer (no `kernel`) or a convolution with stride 1, of normalised weights.

    In training mode the stored weights are replaced by their normalised values first.
    """

    def __init__(self, width_in: int, width_out: int, *kernel: int) -> None:
        super().__init__()
        weight = torch.empty(width_out, width_in, *kernel)
        if not weight.is_meta:  # where a first random draw takes a second of imports
            weight.normal_()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, gain: float | Tensor = 1.0) -> Tensor:
        """(B, width_in, ...) => (B, width_out, ...)."""
        dims = range(1, self.weight.ndim)
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalize(self.weight.float(), dims))
        fan_in = self.weight[0].numel()
        weight = normalize(self.weight.float(), dims) * (gain / math.sqrt(fan_in))
        weight = weight.to(x.dtype)
        if weight.ndim == 2:
            return x @ weight.t()
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class MPFourier(nn.Module):
    """sqrt(2) cos(x f + p) with fixed random frequencies and phases, (B,) => (B, width)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        freqs, phases = torch.empty(width), torch.empty(width)
        if not freqs.is_meta:
            freqs.normal_().mul_(2 * math.pi)
            phases.uniform_().mul_(2 * math.pi)
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", phases)

    def forward(self, x: Tensor) -> Tensor:
        """(B,) => (B, width), float32."""
        return math.sqrt(2) * torch.cos(x.float()[:, None] * self.freqs + self.phases)


class Block(nn.Module):
    """Residual block with optional resampling by 2 and optional cosine attention.

    Maps x (B, width_in, H, W) and an embedding (B, emb_width) to (B, width_out, H', W').
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        emb_width: int,
        *,
        flavour: Literal["enc", "dec"],
        resample: Literal["up", "down"] | None = None,
        attention: bool = False,
        channels_per_head: int = 64,
        clip: float = 256.0,
    ) -> None:
        super().__init__()
        self.flavour, self.resample, self.clip = flavour, resample, clip
        self.heads = width_out // channels_per_head if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPConv(width_out if flavour == "enc" else width_in, width_out, 3, 3)
        self.emb_linear = MPConv(emb_width, width_out)
        self.conv_res1 = MPConv(width_out, width_out, 3, 3)
        self.conv_skip = MPConv(width_in, width_out, 1, 1) if width_in != width_out else None
        if attention:
            if not self.heads:
                raise ValueError(
                    f"a block with attention has at least {channels_per_head} channels, got "
                    f"{width_out}"
                )
            self.attn_qkv = MPConv(width_out, 3 * width_out, 1, 1)
            self.attn_proj = MPConv(width_out, width_out, 1, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, width_in, H, W), (B, emb_width) => (B, width_out, H', W')."""
        if self.resample == "down":
            x = F.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.flavour == "enc":
            x = normalize(self._skip(x), [1])
        scale = self.emb_linear(emb, self.emb_gain) + 1
        y = self.conv_res0(mp_silu(x))
        y = self.conv_res1(mp_silu(y * scale[:, :, None, None].to(y.dtype)))
        if self.flavour == "dec":
            x = self._skip(x)
        x = mp_sum(x, y, RESIDUAL_BALANCE)
        if self.heads:
            x = mp_sum(x, self.attn_proj(self._attend(x)), RESIDUAL_BALANCE)
        return x.clip(-self.clip, self.clip)

    def _skip(self, x: Tensor) -> Tensor:
        return x if self.conv_skip is None else self.conv_skip(x)

    def _attend(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        # In the published weights the channel axis is ordered as (head, channel, [q, k, v]).
        qkv = self.attn_qkv(x).reshape(b, self.heads, c // self.heads, 3, height * width)
        q, k, v = (part.transpose(-1, -2) for part in normalize(qkv, [2]).unbind(3))
        out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(-1, -2).reshape(b, c, height, width)


class UNet(nn.Module):
    """EDM2's U-Net F(x; c_noise, labels).

    `channels` times `channel_mult` is the width of each level, from full resolution down;
    attention is in all blocks at the sizes `attn_resolutions`. With `num_classes` 0 there is no
    `emb_label`, and labels are ignored. Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        num_classes: int,
        channels: int,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        channels_per_head: int = 64,
        clip: float = 256.0,
    ) -> None:
        super().__init__()
        halvings = len(channel_mult) - 1
        if resolution % 2**halvings:
            raise ValueError(
                f"images of {resolution} pixels cannot be halved {halvings} times: use fewer "
                "levels in channel_mult"
            )
        widths = [channels * factor for factor in channel_mult]
        sizes = [resolution >> level for level in range(len(widths))]
        self.num_classes = num_classes
        emb_width = max(widths)
        self.emb_fourier = MPFourier(widths[0])
        self.emb_noise = MPConv(widths[0], emb_width)
        self.emb_label = MPConv(num_classes, emb_width) if num_classes else None
        block = partial(Block, emb_width=emb_width, channels_per_head=channels_per_head, clip=clip)
        attends = [size in attn_resolutions for size in sizes]

        self.enc = nn.ModuleDict()
        width, skips = image_channels + 1, []
        for level, (size, out) in enumerate(zip(sizes, widths, strict=True)):
            name = f"{size}x{size}"
            if level == 0:
                self.enc[f"{name}_conv"] = MPConv(width, out, 3, 3)
                width = out
            else:
                self.enc[f"{name}_down"] = block(width, width, flavour="enc", resample="down")
            skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{name}_block{i}"] = block(
                    width, out, flavour="enc", attention=attends[level]
                )
                width = out
                skips.append(width)

        self.dec = nn.ModuleDict()
        for level in reversed(range(len(sizes))):
            name, out = f"{sizes[level]}x{sizes[level]}", widths[level]
            if level == len(sizes) - 1:
                self.dec[f"{name}_in0"] = block(width, width, flavour="dec", attention=True)
                self.dec[f"{name}_in1"] = block(width, width, flavour="dec")
            else:
                self.dec[f"{name}_up"] = block(width, width, flavour="dec", resample="up")
            for i in range(num_blocks + 1):
                self.dec[f"{name}_block{i}"] = block(
                    width + skips.pop(), out, flavour="dec", attention=attends[level]
                )
                width = out
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.out_conv = MPConv(width, image_channels, 3, 3)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor) -> Tensor:
        """Output (B, C, H, W) for scaled images `x` (B, C, H, W), in the dtype of `x`.

        `c_noise` (B,) is ln(sigma) / 4, `labels` (B, K) one-hot with zeros for null.
        """
        emb: Tensor = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None:
            labels = labels.to(emb) * math.sqrt(self.num_classes)
            emb = mp_sum(emb, self.emb_label(labels), LABEL_BALANCE)
        emb = mp_silu(emb)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, Block) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(mp_cat(x, skips.pop()) if "_block" in name else x, emb)
        out: Tensor = self.out_conv(x, self.out_gain)
        return out


class EDM2Precond(nn.Module):
    """EDM's denoiser around EDM2's U-Net, and the head for the uncertainty of its error."""

    def __init__(self, unet: UNet, *, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.unet, self.sigma_data = unet, sigma_data
        self.logvar_fourier = MPFourier(LOGVAR_WIDTH)
        self.logvar_linear = MPConv(LOGVAR_WIDTH, 1)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma, labels), same shape as x (B, C, H, W); labels (B, K), zeros for null.

        `sigma` is (B,) or scalar. The network runs in float32, the rest in the dtype of `x`.
        """
        sigma = sigma.to(x).reshape(-1).expand(len(x))
        level, sd = sigma[:, None, None, None], self.sigma_data
        scale = (level**2 + sd**2).sqrt()
        out: Tensor = self.unet((x / scale).float(), _c_noise(sigma), labels.float())
        return (sd / scale) ** 2 * x + level * sd / scale * out.to(x)

    def logvar(self, sigma: Tensor) -> Tensor:
        """The predicted log-variance (B,) of the error at `sigma` (B,), which weights the loss."""
        out: Tensor = self.logvar_linear(self.logvar_fourier(_c_noise(sigma)))
        return out[:, 0]


def _c_noise(sigma: Tensor) -> Tensor:
    return (sigma.log() / 4).float()
