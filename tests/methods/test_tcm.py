"""Truncated consistency training against closed forms of Gaussian data and numpy."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.data import Modes1d
from methods import TCM, Batch, BatchRNG, Guidance, Progress
from methods.tcm import boundary_rows
from tests.methods.gaussian import consistent, kept

DATA = Modes1d().spec
STD = 3.0
CIFAR10 = TCM.presets["cifar10"].config


def config_of(preset="modes1d", **settings):
    config = TCM.presets[preset].config
    return type(config).model_validate(config.model_dump() | settings)


class Student(nn.Module):
    """A network D = gain x that records the arguments of its calls."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.calls = []

    def forward(self, x, sigma, labels, w_embed=None, *, form, dropout):
        self.calls.append((sigma, form, dropout.initial_seed(), torch.is_grad_enabled()))
        return self.gain * x


def first_stage(x, sigma, labels):
    return consistent(x, sigma[:, None], 0.0, STD)


def run(n=256, step=3, teacher=first_stage, **settings):
    method = TCM(config_of(**settings), DATA)
    generator = torch.Generator().manual_seed(1)
    x0 = STD * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    nets, batch = Student(), Batch(x0, torch.ones(n, 1), teacher=teacher)
    return nets, x0, method.loss(nets, batch, Progress(step, 8), BatchRNG(0, n, 0, n))


def test_quantiles_of_the_published_noise_levels():
    u = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0], dtype=torch.float64)
    found = TCM(CIFAR10, DATA).levels(u)
    wanted = torch.tensor([1.0, 1.0127, 1.0430, 1.2211, 2.5235, 10.444, 80.0]).double()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("total", "count"), [(1024, 256), (10, 2), (3, 0)])
def test_boundary_rows_are_exact_in_number_and_independent_of_slices(total, count):
    whole, found = boundary_rows(BatchRNG(0, total, 0, total), 0.25)
    assert (int(whole.sum()), found) == (count, count)
    cut = total // 3
    parts = [boundary_rows(BatchRNG(0, total, *ends), 0.25) for ends in ((0, cut), (cut, total))]
    assert torch.equal(torch.cat([rows for rows, _ in parts]), whole)
    assert {n for _, n in parts} == {count}


def test_loss_against_numpy():
    n = 256
    _, x0, terms = run(n)
    rng = BatchRNG(0, n, 0, n)
    t = TCM(config_of(), DATA).levels(rng.rand()).double().numpy()
    boundary = (np.arange(n) + 1) % 4 == 0
    t[boundary] = 4.0
    eps, x0 = rng.randn(1)[:, 0].double().numpy(), x0[:, 0].numpy()
    # Step 3 of 8 is stage 3, whose exponent is 4.
    r = np.maximum(t * (1 - 2.0**-4 * (1 + 8 / (1 + np.exp(t)))), 1e-6)
    x_t, x_r = x0 + t * eps, x0 + r * eps
    below = r < 4.0
    assert below[boundary].all()
    assert (~below).sum() > 20
    target = np.where(below, STD * x_r / np.sqrt(STD**2 + r**2), 0.5 * x_r)
    distance = (np.sqrt((0.5 * x_t - target) ** 2 + 0.3**2) - 0.3) / (t - r)
    total = sum(float(term.detach().mean()) for term in terms.values())
    wanted = distance[~boundary].mean() + 0.1 * distance[boundary].mean()
    assert total == pytest.approx(wanted, rel=1e-5)
    assert torch.equal(terms["boundary"] != 0, torch.from_numpy(boundary))
    assert torch.equal(terms["consistency"] != 0, torch.from_numpy(~boundary))


def test_only_levels_above_the_dividing_one_are_trained():
    nets, _, _ = run()
    trained = [call for call in nets.calls if call[-1]]
    assert len(trained) == 1
    assert (trained[0][0] >= 4.0).all()
    assert {form for _, form, _, _ in nets.calls} == {"train"}
    assert len({seed for _, _, seed, _ in nets.calls}) == 1


def test_network_is_not_its_own_target_when_all_targets_are_of_the_first_stage():
    nets, _, _ = run(step=0, sigma_max=8.0, middle_sigma=())  # r(8) is below 4 in the first stage
    assert [grad for *_, grad in nets.calls] == [True]


def test_largest_ratio_is_the_limit():
    # At a limit of 1 - 2^-1 the last stage equals the first.
    capped, first = (run(step=step, limit=0.5)[2]["consistency"] for step in (7, 0))
    assert torch.equal(capped, first)
    assert not torch.equal(run(step=7)[2]["consistency"], first)


def test_optimum_at_the_dividing_level_is_the_closed_form():
    n, gradients = 80_000, []
    for gain in (0.0, 1.0):
        method = TCM(config_of(c_h=1e5), DATA)
        generator = torch.Generator().manual_seed(1)
        x0 = STD * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        nets = Student()
        with torch.no_grad():
            nets.gain.fill_(gain)
        batch = Batch(x0, torch.ones(n, 1), teacher=first_stage)
        terms = method.loss(nets, batch, Progress(0, 8), BatchRNG(0, n, 0, n))
        gradients.append(torch.autograd.grad(terms["boundary"].mean(), nets.gain)[0])
    found = float(gradients[0] / (gradients[0] - gradients[1]))
    r = 4.0 * (1 - 0.5 * (1 + 8 / (1 + np.exp(4.0))))
    wanted = kept(4.0, r, STD) * STD / np.hypot(STD, 4.0)
    # With so large a c_h the loss is quadratic. 20,000 rows.
    assert found == pytest.approx(wanted, rel=0.015)
    assert kept(4.0, r, STD) < 0.95  # the exact first stage at t would differ


def test_first_stage_gets_no_gradient_and_only_lower_levels():
    gain, seen = nn.Parameter(torch.tensor(0.3, dtype=torch.float64)), []

    def teacher(x, sigma, labels):
        seen.append(sigma)
        return gain * x

    _, _, terms = run(teacher=teacher)
    torch.stack([term.mean() for term in terms.values()]).sum().backward()
    assert gain.grad is None
    assert (seen[0] < 4.0).all()
    with pytest.raises(ValueError, match="needs a teacher"):
        run(teacher=None)


def test_published_settings():
    train = TCM.presets["cifar10"].train
    assert (train.iterations, train.batch, train.lr) == (300_000, 1024, 5e-5)
    assert (train.optimizer, train.ema, train.ema_ramp) == ("radam", 0.9999, False)
    assert (CIFAR10.boundary_share, CIFAR10.boundary_weight) == (0.25, 0.1)
    assert (CIFAR10.net.dropout, CIFAR10.c_h, CIFAR10.q, CIFAR10.limit) == (0.2, 1e-8, 2.0, 0.999)
    assert train.iterations / (CIFAR10.last_stage + 1) == 25_000


def test_sampling_below_the_dividing_level_is_refused():
    with pytest.raises(ValidationError, match=r"middle_sigma \[0.8\] must be at least"):
        config_of(middle_sigma=(0.8,))
    method = TCM(config_of(), DATA)
    assert method.supports(Guidance(1), 2) is None
    assert method.supports(Guidance(2), 1) == "tcm takes no guidance"
    assert "1 to 2 steps" in method.supports(Guidance(1), 3)
