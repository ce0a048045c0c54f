import math

import pytest
import torch
import torch.nn.functional as F

from methods.nets.config import MLPConfig, build_net
from methods.spec import DataSpec
from tests.methods.nets.golden import awaken


def mlp(dim=2, guidance_dim=0, **options):
    torch.manual_seed(0)
    return build_net(MLPConfig(**options), DataSpec("toy", (dim,), 4), guidance_dim)


def inputs(dim=2, batch=5):
    generator = torch.Generator().manual_seed(0)
    labels = F.one_hot(torch.arange(batch) % 4, 4).float()
    return torch.randn(batch, dim, generator=generator), torch.linspace(-1.6, 1.1, batch), labels


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_shape_and_zero_start(dim):
    x, c_noise, labels = inputs(dim)
    out = mlp(dim)(x, c_noise, labels)
    assert out.shape == x.shape
    assert not out.any()
    assert awaken(mlp(dim))(x, c_noise, labels).any()


def test_output_depends_on_every_input():
    model = awaken(mlp(guidance_dim=8))
    x, c_noise, labels = inputs()
    w = torch.zeros(5, 8)
    base = model(x, c_noise, labels, w)
    for other in (
        model(x + 1, c_noise, labels, w),
        model(x, c_noise + 0.1, labels, w),
        model(x, c_noise, torch.zeros_like(labels), w),
        model(x, c_noise, labels, w + 1),
    ):
        assert not torch.allclose(base, other)


def test_gradients_reach_every_parameter():
    model = awaken(mlp(guidance_dim=8))
    model(*inputs(), torch.randn(5, 8)).square().sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_rows_are_independent_of_each_other():
    model = awaken(mlp())
    x, c_noise, labels = inputs()
    torch.testing.assert_close(
        model(x, c_noise, labels)[1:3], model(x[1:3], c_noise[1:3], labels[1:3])
    )


def test_dropout_mask_depends_on_the_seed_only():
    args = inputs()
    model = awaken(mlp(dropout=0.3)).train()
    draw = [model(*args, dropout=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    assert torch.equal(model(*args), awaken(mlp(dropout=0.0))(*args))


def test_inputs_without_a_layer_are_refused():
    with pytest.raises(ValueError, match="takes no guidance embedding"):
        mlp()(*inputs(), torch.zeros(5, 8))
    with pytest.raises(ValueError, match="needs w_embed"):
        mlp(guidance_dim=8)(*inputs())
    with pytest.raises(ValueError, match="augmentation"):
        mlp()(*inputs(), augment=torch.zeros(5, 9))


def test_noise_features_distinguish_all_levels():
    # Pairs of levels in late training stages: 5 % apart, over the whole range.
    sigma = torch.logspace(math.log10(0.002), math.log10(80.0), 218, dtype=torch.float64)
    angle = (sigma.log() / 4)[:, None] * mlp().freqs
    features = torch.cat([angle.sin(), angle.cos()], dim=1)
    distance = torch.cdist(features, features)
    distance.fill_diagonal_(math.inf)
    # A wrap-around would give two distant levels the same features.
    assert float(distance.min()) > 0.3
    nearest = distance.argmin(1)
    assert int((nearest - torch.arange(len(sigma))).abs().max()) == 1
