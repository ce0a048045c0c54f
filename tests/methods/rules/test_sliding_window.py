import numpy as np
import pytest
import torch

from methods import Guidance, SampleRNG
from methods.rules import Call, Networks, make_rule
from methods.rules.dry_run import evaluations
from methods.samplers import karras_sigmas
from methods.spec import DataSpec
from tests.methods.rules.calls import point


def reference(main, size, **knobs):
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    rng, labels = SampleRNG(0, range(2)), torch.eye(2)
    call = Call(x, x.new_tensor(1.0), point(), labels, 3.0, Networks(main), rng)
    call.cond = call.denoise()
    rule = make_rule("sliding-window", {"sliding-window": knobs})
    return x.numpy(), rule.reference(call).numpy()


def centred(x, sigma, labels):
    """Depends on the crop."""
    return x - x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("size", "count", "starts", "side"),
    [(64, 2, (0, 24), 40), (8, 2, (0, 2), 6), (32, 3, (0, 4, 8), 24)],
)
def test_against_numpy(size, count, starts, side, masked):
    x, found = reference(centred, size, count=count, masked=masked)
    total, cover = np.zeros_like(x), np.zeros((size, size))
    for i in starts:
        for j in starts:
            crop = x[:, :, i : i + side, j : j + side]
            total[:, :, i : i + side, j : j + side] += crop - crop.mean((2, 3), keepdims=True)
            cover[i : i + side, j : j + side] += 1
    assert cover.min() == 1
    expected = total / cover
    if masked:
        expected = np.where(cover > 1, expected, x - x.mean((2, 3), keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_pixelwise_denoiser_is_not_guided():
    x, found = reference(lambda x, sigma, labels: x / 2, 16)
    np.testing.assert_allclose(found, x / 2, rtol=1e-12)


def test_crops_cost_their_share_of_the_image():
    rule, data = make_rule("sliding-window"), DataSpec("images", (3, 64, 64), 10)
    found = evaluations(rule, Guidance(3.0, rule), karras_sigmas(1), data=data)
    assert found == {"main": 1 + 4 * (40 / 64) ** 2}
