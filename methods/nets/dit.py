"""The transformer of DiT and SiT, with the published parameter names.

Sources: Peebles & Xie (2023, DiT) and Ma et al. (2024, SiT), whose network is the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 128
PERIOD = 10_000.0
EPS = 1e-6


def position_embedding(side: int, width: int) -> Tensor:
    """Sines and cosines of column and row of `side` x `side` patches, (1, side^2, width)."""
    freqs = PERIOD ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * freqs
    waves = torch.cat([angle.sin(), angle.cos()], 1)
    rows, columns = waves.repeat_interleave(side, 0), waves.repeat(side, 1)
    return torch.cat([columns, rows], 1)[None].float()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm of `x` (B, N, D) without weights, scaled and shifted by (B, D) each."""
    normal = F.layer_norm(x, x.shape[-1:], eps=EPS)
    return normal * (1 + scale[:, None]) + shift[:, None]


class Patches(nn.Module):
    """Images (B, C, H, H) => tokens (B, N, width), row by row."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, H) => (B, N, width)."""
        out: Tensor = self.proj(x)
        return out.flatten(2).transpose(1, 2)


class Times(nn.Module):
    """Times (B,), not scaled => (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )

    @staticmethod
    def waves(t: Tensor) -> Tensor:
        """Cosines and sines (B, 256) of `t` (B,)."""
        index = torch.arange(FREQUENCIES, dtype=torch.float32, device=t.device)
        angle = t.float()[:, None] * torch.exp(-math.log(PERIOD) / FREQUENCIES * index)
        return torch.cat([angle.cos(), angle.sin()], 1)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) => (B, width)."""
        out: Tensor = self.mlp(self.waves(t))
        return out


class Labels(nn.Module):
    """Class labels (B, K) => (B, width); the last row of the table is the null label's."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """The embedding of one-hot `labels`, zeros for null; linear in between."""
        null = 1 - labels.sum(1, keepdim=True)
        return torch.cat([labels, null], 1) @ self.embedding_table.weight


class Attention(nn.Module):
    """Self-attention of tokens (B, N, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) => (B, N, width)."""
        b, n, width = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        out: Tensor = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(b, n, width))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear layers per token, GELU in its tanh form between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) => (B, N, width)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """Transformer block whose norms and residuals are modulated by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = MLP(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, N, width) and a condition (B, width) => (B, N, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, 1)
        x = x + gate1[:, None] * self.attn(modulate(x, shift1, scale1))
        out: Tensor = x + gate2[:, None] * self.mlp(modulate(x, shift2, scale2))
        return out


class FinalLayer(nn.Module):
    """Tokens (B, N, width) => the values of their patches (B, N, size)."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, N, width), (B, width) => (B, N, size)."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, 1)
        out: Tensor = self.linear(modulate(x, shift, scale))
        return out


class DiT(nn.Module):
    """Transformer on patches of images, conditional on a time and a class.

    `out_channels` is `image_channels`, or twice as many if the network also predicts a variance.
    Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        out_channels: int,
        num_classes: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        if resolution % patch:
            raise ValueError(f"images of {resolution} pixels do not divide into patches of {patch}")
        if width % 4:
            raise ValueError(f"the width must be a multiple of 4, got {width}")
        self.patch, self.image_channels = patch, image_channels
        self.x_embedder = Patches(image_channels, patch, width)
        self.t_embedder = Times(width)
        self.y_embedder = Labels(num_classes, width)
        positions = position_embedding(resolution // patch, width)
        self.pos_embed = nn.Parameter(positions, requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch**2 * out_channels)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Output (B, out_channels, H, H) for `x` (B, C, H, H), in float32.

        `t` (B,) in the units of the model, `labels` (B, K) one-hot with zeros for null.
        """
        condition = self.t_embedder(t) + self.y_embedder(labels.float())
        tokens = self.x_embedder(x.float()) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self._images(self.final_layer(tokens, condition))

    def _images(self, tokens: Tensor) -> Tensor:
        """Patches (B, N, p p C), channels last, put together to images (B, C, H, H)."""
        b, n, size = tokens.shape
        side, p = math.isqrt(n), self.patch
        grid = tokens.reshape(b, side, side, p, p, size // p**2)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(b, -1, side * p, side * p)
