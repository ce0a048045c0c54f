import math

import numpy as np
import pytest
import torch
from torch import nn

from methods.precond import ConsistencyPrecond, EDMPrecond, IGCTPrecond

DATA, LOW, HIGH = 0.7, 0.01, 50.0


class Affine(nn.Module):
    """A network 2 x + 3 c_noise that records its arguments."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, x, c_noise, labels, w_embed=None, *, dropout=None, augment=None):
        self.seen = {"x": x, "c_noise": c_noise, "labels": labels, "w": w_embed, "drop": dropout}
        return self.gain * x + 3 * c_noise[:, None, None, None]


def network(x, sigma):
    """The same network in numpy, including c_in and c_noise."""
    return 2 * x / np.sqrt(sigma**2 + DATA**2) + 3 * np.log(sigma) / 4


def denoised(x, sigma, boundary):
    c_skip = DATA**2 / ((sigma - boundary) ** 2 + DATA**2)
    c_out = (sigma - boundary) * DATA / np.sqrt(sigma**2 + DATA**2)
    return c_skip * x + c_out * network(x, sigma)


def edm(x, sigma, labels, **options):
    return EDMPrecond(Affine(), sigma_data=DATA)(x, sigma, labels, **options)


def consistency(form):
    def call(x, sigma, labels, **options):
        model = ConsistencyPrecond(Affine(), sigma_data=DATA, sigma_min=LOW)
        return model(x, sigma, labels, form=form, **options)

    return call


def igct():
    return IGCTPrecond(Affine(), Affine(), sigma_data=DATA, sigma_min=LOW, sigma_max=HIGH)


def denoise(form):
    def call(x, sigma, labels, **options):
        return igct().denoise(x, sigma, labels, torch.zeros(len(x), 4), form=form, **options)

    return call


def noise(form):
    def call(x, sigma, labels, **options):
        return igct().noise(x, sigma, labels, form=form, **options)

    return call


CASES = {
    "edm": (edm, lambda x, s: denoised(x, s, 0.0)),
    "consistency-train": (consistency("train"), lambda x, s: denoised(x, s, 0.0)),
    "consistency-eval": (consistency("eval"), lambda x, s: denoised(x, s, LOW)),
    "denoise-train": (denoise("train"), lambda x, s: denoised(x, s, 0.0)),
    "denoise-eval": (denoise("eval"), lambda x, s: denoised(x, s, LOW)),
    "noise-train": (noise("train"), lambda x, s: x + (HIGH - s) * network(x, s)),
    "noise-eval": (noise("eval"), lambda x, s: (HIGH - s) * network(x, s)),
}
MODELS = pytest.mark.parametrize("name", CASES)


def inputs(dtype=torch.float32):
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(dtype), torch.tensor([0.02, 1.0, 30.0], dtype=dtype), torch.eye(3)


@MODELS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coefficients(name, dtype):
    call, reference = CASES[name]
    x, sigma, labels = inputs(dtype)
    out = call(x, sigma, labels)
    assert out.dtype == dtype
    want = reference(x.numpy(), sigma.numpy()[:, None, None, None])
    # The network runs in float32 even if the state is float64.
    np.testing.assert_allclose(out.detach().numpy(), want, rtol=3e-6, atol=3e-5)


@MODELS
def test_scalar_sigma_applies_to_all_rows(name):
    call, _ = CASES[name]
    x, _, labels = inputs()
    assert torch.equal(call(x, torch.tensor(0.3), labels), call(x, torch.full((3,), 0.3), labels))


@MODELS
def test_output_and_gradient_at_sigma_zero_are_finite(name):
    call, _ = CASES[name]
    x, sigma, labels = inputs()
    sigma = torch.where(torch.tensor([True, False, False]), torch.zeros_like(sigma), sigma)
    x, sigma = x.requires_grad_(), sigma.requires_grad_()
    out = call(x, sigma, labels)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert sigma.grad.isfinite().all()


@MODELS
def test_half_precision_input_gives_float32_output(name):
    call, _ = CASES[name]
    x, sigma, labels = inputs()
    assert call(x.bfloat16(), sigma, labels).dtype == torch.float32


def test_network_gets_float32_and_all_inputs():
    x, sigma, labels = inputs(torch.float64)
    pair, w, generator = igct(), torch.ones(3, 4), torch.Generator()
    pair.denoise(x, sigma, labels.long(), w, form="train", dropout=generator)
    seen = pair.dec.seen
    assert {seen[k].dtype for k in ("x", "c_noise", "labels")} == {torch.float32}
    assert seen["c_noise"].shape == (3,)
    assert seen["w"] is w
    assert seen["drop"] is generator
    pair.noise(x, sigma, labels, form="train")
    assert pair.enc.seen["w"] is None
    assert pair.enc.seen["drop"] is None


@pytest.mark.parametrize("name", ["edm", "consistency-train", "denoise-train"])
def test_training_form_is_the_identity_at_zero(name):
    x, _, labels = inputs()
    assert torch.equal(CASES[name][0](x, torch.tensor(0.0), labels), x)


@pytest.mark.parametrize("name", ["consistency-eval", "denoise-eval"])
def test_inference_form_is_the_identity_at_sigma_min(name):
    x, _, labels = inputs()
    assert torch.equal(CASES[name][0](x, torch.tensor(LOW), labels), x)


def test_noiser_boundaries():
    x, _, labels = inputs()
    top = torch.tensor(HIGH)
    assert torch.equal(noise("train")(x, top, labels), x)
    assert torch.equal(noise("eval")(x, top, labels), torch.zeros_like(x))


def test_form_is_independent_of_the_mode_of_the_module():
    x, sigma, labels = inputs()
    model = ConsistencyPrecond(Affine(), sigma_data=DATA, sigma_min=LOW)
    for form in ("train", "eval"):
        out = [getattr(model, mode)()(x, sigma, labels, form=form) for mode in ("train", "eval")]
        assert torch.equal(*out)


def test_unknown_form_is_refused():
    x, sigma, labels = inputs()
    with pytest.raises(ValueError, match="'train' or 'eval', got 'test'"):
        consistency("test")(x, sigma, labels)


def test_training_target_has_unit_variance():
    # EDM's condition: with F = target the loss weight 1 / c_out^2 is (s^2 + d^2) / (s d)^2.
    sigma = torch.tensor([0.05, 0.5, 5.0])
    x, labels = torch.zeros(3, 1, 1, 1), torch.eye(3)

    class One(Affine):
        def forward(self, x, *args, **options):
            return torch.ones_like(x)

    c_out = EDMPrecond(One(), sigma_data=DATA)(x, sigma, labels).flatten()
    weight = (sigma**2 + DATA**2) / (sigma * DATA) ** 2
    torch.testing.assert_close(c_out**-2, weight)
    assert math.isclose(float(c_out[2]), DATA, rel_tol=0.02)
