"""Networks that equal CFG of a closed-form denoiser, the exact optimum of guided training."""

import torch
from torch import nn

from bench.data import Modes2d
from methods import Batch
from methods.oracle import exact_denoised

DATA = Modes2d().spec
B = 64


def exact(x, sigma, labels):
    return exact_denoised(x, sigma, labels, DATA.mixture)


def null(x, sigma):
    return exact(x, sigma, torch.zeros(len(x), 4))


def guided(x, sigma, labels, g):
    """CFG of the exact denoiser, D_null + g (D_c - D_null), with one scale per row."""
    d_null = null(x, sigma)
    return d_null + g[:, None] * (exact(x, sigma, labels) - d_null)


class Family(nn.Module):
    """The exact guided denoiser at the scale that `scale` decodes from the features.

    It records its calls. `offset` is added to every output, so that its gradient is the gradient of
    the loss with respect to the output.
    """

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.offset = nn.Parameter(torch.zeros(B, 2, dtype=torch.float64))
        self.calls = []

    def forward(self, x, sigma, labels, features, *, form, dropout=None):
        g = self.scale(features)
        self.calls.append((x, sigma, labels, g, form, dropout, torch.is_grad_enabled()))
        return guided(x, sigma, labels, g) + self.offset


def batch():
    generator = torch.Generator().manual_seed(1)
    x0 = 2 * torch.randn(B, 2, generator=generator, dtype=torch.float64)
    return Batch(x0, torch.eye(4, dtype=torch.float64)[torch.arange(B) % 4])


def slowest(features, scale):
    """Decode an embedded number from its lowest frequency, 1e-4 times `scale`, in float64."""
    half = features.shape[1] // 2
    return features[:, half - 1].double().asin() / (1e-4 * scale)


def denoising_error(call, x0, config):
    """EDM's weighted error of the exact conditional denoiser for the noisy images of a call."""
    x, sigma, labels = call[:3]
    sigma = sigma.double()
    weight = 1 / sigma**2 + 1 / config.sigma_data**2
    return weight * (exact(x, sigma, labels) - x0).square().sum(1)
