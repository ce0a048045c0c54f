"""EDM's published recipe: stochastic sampling, augmentation, and the half-life of the EMA."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.training.step import Ema
from methods import Batch, BatchRNG, Guidance, Progress, SampleRNG
from methods.augment import (
    SCALE,
    SHIFT,
    augment_images,
    augment_labels,
    change_images,
    draw_changes,
)
from methods.edm import EDM, EDMConfig
from methods.rules import CFG, Interval
from methods.rules.base import Networks
from methods.rules.dry_run import evaluations
from methods.rules.interval import IntervalKnobs
from methods.rules.trajectory import sample_guided, trajectory_points
from methods.samplers import Churn, karras_sigmas
from methods.spec import DataSpec
from tests.methods.test_samplers import by_numpy

CHURN = Churn(40, 0.05, 50, 1.003)
SMALL = {"kind": "unet", "arch": "ddpmpp", "channels": 8, "channel_mult": [1], "num_blocks": 1}
IMAGES = DataSpec("x", (1, 8, 8), 3)


def config(**more):
    return EDMConfig.model_validate({"net": {**SMALL, "augment_dim": 9}, **more})


def test_guided_stochastic_sampling_against_numpy():
    def main(x, sigma, labels):
        return x / (1 + sigma) + labels

    def guided(x, sigma, scale):
        return x / (1 + sigma) + scale

    labels, g, sigmas = torch.ones(3, 1), 2.5, karras_sigmas(16)
    rng, same = SampleRNG(1, range(3)), SampleRNG(1, range(3))
    networks = Networks(main=main, null=lambda x, sigma: main(x, sigma, 0 * labels))
    x = 80 * rng.randn((1,)).double()
    for guidance in (Guidance(g, CFG()), Guidance(1.0)):
        rng, same = SampleRNG(1, range(3)), SampleRNG(1, range(3))
        out = sample_guided(networks, x, sigmas, labels, guidance, rng, churn=CHURN)
        noise = [
            same.randn((1,)).double().numpy() if CHURN.raised(t, 16) != t else None
            for t in sigmas[:-1].tolist()
        ]
        denoise = partial(guided, scale=guidance.scale)
        want = by_numpy(denoise, x.numpy(), sigmas.numpy(), CHURN, noise)
        np.testing.assert_allclose(out.numpy(), want, rtol=1e-10)


def test_levels_of_a_rule_are_those_of_the_calls():
    sigmas = karras_sigmas(16)
    rule = Interval(IntervalKnobs(low=float(sigmas[6]), high=float(sigmas[3])))
    points = list(trajectory_points(rule, sigmas, CHURN))
    assert points[6].sigma == points[6].start == CHURN.raised(float(sigmas[3]), 16)
    # Step 3 starts above the interval, and step 6 inside, since noise is added first.
    guided = {p.step for p in points if rule.scale(2.0, p) != 1}
    assert guided == {4, 5, 6}
    assert evaluations(rule, Guidance(2.0, rule), sigmas, CHURN)["null"] == 6


def test_settings_of_the_sampler():
    method = EDM(config(s_churn=40, s_min=0.05, s_max=50, s_noise=1.003), IMAGES)
    assert method.config.churn == CHURN
    assert config().churn is None
    assert config(s_churn=10).churn == Churn(10, 0.0, math.inf, 1.0)
    assert method.nfe(Guidance(1.0), 256) == 511
    torch.manual_seed(0)
    nets = method.build().eval()
    nn.init.normal_(nets.model.dec["8x8_aux_conv"].weight)
    labels = torch.eye(3)

    def sample(chosen, indices):
        with torch.no_grad():
            return chosen.sample(nets, labels[indices], Guidance(1.0), 6, SampleRNG(0, indices))

    whole = sample(method, [0, 1, 2])
    torch.testing.assert_close(whole[[2]], sample(method, [2]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole, sample(EDM(config(), IMAGES), [0, 1, 2]), atol=1e-3)
    # Editing stays deterministic.
    latent = 80 * torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        edits = [
            EDM(c, IMAGES).edit(nets, latent, labels, Guidance(1.0))
            for c in (method.config, config())
        ]
    assert torch.equal(*edits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"s_churn": -1}, "greater than or equal"),
        ({"s_churn": 1, "s_min": 3, "s_max": 2}, "must ascend"),
        ({"augment": 1.5}, "less than or equal"),
        ({"augment": 0.1, "net": SMALL}, "augment_dim = 9"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        config(**settings)


def changes(**by):
    names = ("mirror", "upside", "scale", "turn", "direction", "stretch", "right", "down")
    return torch.tensor([[float(by.get(name, 0)) for name in names]])


def image(n=16):
    return torch.rand(1, 2, n, n, generator=torch.Generator().manual_seed(0)) * 2 - 1


EXACT = {
    "nothing": ({}, lambda x: x),
    "mirror": ({"mirror": 1}, lambda x: x.flip(3)),
    "upside": ({"upside": 1}, lambda x: x.flip(2)),
    "quarter": ({"turn": math.pi / 2}, lambda x: torch.rot90(x, 1, (2, 3))),
    "back": ({"turn": -math.pi / 2}, lambda x: torch.rot90(x, -1, (2, 3))),
    "half": ({"turn": math.pi}, lambda x: torch.rot90(x, 2, (2, 3))),
    "flip first": (
        {"mirror": 1, "turn": math.pi / 2}, lambda x: torch.rot90(x.flip(3), 1, (2, 3))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_flips_and_quarter_turns_move_pixels(name):
    by, expected = EXACT[name]
    x = image()
    # float32 positions are off by 1e-6 of a pixel; neighbours differ by up to 2.
    torch.testing.assert_close(change_images(x, changes(**by)), expected(x), rtol=0, atol=2e-5)


def test_shift_by_whole_pixels():
    # 1/8 of 16 pixels is 2; the rest of the image is reflected.
    x = image()
    out = change_images(x, changes(right=1, down=-0.5))
    torch.testing.assert_close(out[..., :-1, 2:], x[..., 1:, :-2], rtol=0, atol=2e-5)
    torch.testing.assert_close(out[..., :-1, :2], x[..., 1:, :2].flip(3), rtol=0, atol=2e-5)


def ramps(n):
    """Coordinates of the pixels' centres from the middle: to the right, and up."""
    across = torch.arange(n) - (n - 1) / 2
    return torch.stack([across.expand(n, n), -across[:, None].expand(n, n)])[None]


@pytest.mark.parametrize(
    "by",
    [
        {"scale": 1.3},
        {"turn": 0.4},
        {"stretch": 0.8},
        {"stretch": 0.8, "direction": 1.1},
        {"right": 0.3, "down": -0.2},
        {"scale": 0.5, "turn": -0.3, "stretch": -0.5, "direction": 2.0, "right": 0.2},
    ],
)
def test_ramps_follow_the_inverse_of_the_change(by):
    n = 32
    out = change_images(ramps(n), changes(**by))[0].double().numpy()
    given = {name: by.get(name, 0.0) for name in ("scale", "turn", "stretch", "direction")}
    a, d = given["turn"], given["direction"]

    def turned(angle):  # x to the right and y up
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    longer = SCALE ** given["stretch"]
    stretched = turned(d) @ np.diag([longer, 1 / longer]) @ turned(-d)
    moved = stretched @ turned(a) * SCALE ** given["scale"]
    shift = SHIFT * n * np.array([by.get("right", 0.0), -by.get("down", 0.0)])
    points = ramps(n)[0].double().numpy().reshape(2, -1) - shift[:, None]
    want = (np.linalg.inv(moved) @ points).reshape(2, n, n)
    middle = (slice(None), slice(8, -8), slice(8, -8))  # away from reflections
    # Cubic interpolation reproduces a ramp; positions are float32.
    np.testing.assert_allclose(out[middle], want[middle], atol=2e-5)


def test_labels_are_those_of_the_paper():
    found = augment_labels(
        changes(mirror=1, upside=1, scale=2, turn=0.5, direction=0.3, stretch=-1, right=3, down=4)
    )
    want = [1, 1, 2, math.cos(0.5) - 1, math.sin(0.5), -math.cos(0.3), -math.sin(0.3), 3, 4]
    torch.testing.assert_close(found, torch.tensor([want]))
    assert not augment_labels(changes()).any()


def test_every_change_has_its_probability():
    drawn = draw_changes(BatchRNG(0, 20_000, 0, 20_000), 0.12)
    share = (drawn != 0).double().mean(0).tolist()
    # Three standard errors of a share: .01 at most.
    assert share == pytest.approx([0.5, 0.06, *[0.12] * 6], abs=0.011)
    on = drawn[:, 2][drawn[:, 2] != 0]
    assert float(on.std()) == pytest.approx(1, abs=0.05)
    assert float(drawn[:, 3].abs().max()) <= math.pi
    assert ((drawn[:, 6] != 0) == (drawn[:, 7] != 0)).all()
    assert not draw_changes(BatchRNG(0, 100, 0, 100), 0.0)[:, 1:].any()


def test_augmentation_does_not_depend_on_the_slices_of_a_batch():
    x = torch.rand(6, 1, 8, 8)
    whole = augment_images(x, BatchRNG(0, 6, 0, 6), 0.5)
    parts = [
        augment_images(x[part.start : part.stop], part, 0.5)
        for part in BatchRNG(0, 6, 0, 6).split(4)
    ]
    for a, b in zip(whole, (torch.cat(both) for both in zip(*parts, strict=True)), strict=True):
        torch.testing.assert_close(a, b)


def test_loss_passes_changed_images_and_their_labels():
    seen = []

    def nets(x, sigma, labels, *, augment, dropout):
        seen.append(augment)
        return torch.zeros_like(x)

    x0, labels = torch.rand(64, 1, 8, 8), torch.eye(3)[torch.arange(64) % 3]
    terms = []
    for p in (0.0, 1.0):
        method = EDM(config(augment=p), IMAGES)
        terms.append(method.loss(nets, Batch(x0, labels), Progress(0, 1), BatchRNG(0, 64, 0, 64)))
    assert seen[0] is None
    assert seen[1].shape == (64, 9)
    # The same noise levels: the loss of a net that gives 0 is that of the image it should give.
    rng = BatchRNG(0, 64, 0, 64)
    rng.randn(), rng.randn(1, 8, 8), rng.rand(1)
    changed, given = augment_images(x0, rng, 1.0)
    assert torch.equal(seen[1], given)
    energy = [x.square().flatten(1).sum(1) for x in (x0, changed)]
    ratio = terms[1]["denoise"] / terms[0]["denoise"]
    torch.testing.assert_close(ratio, energy[1] / energy[0])


@pytest.mark.parametrize(("half_life", "batch"), [(500_000, 512), (2000, 64)])
def test_half_life_is_the_smaller_of_its_own_and_five_percent_of_the_images(half_life, batch):
    net = nn.Linear(1, 1, bias=False)
    ema = Ema(0.5 ** (batch / half_life), True, {"weight": torch.zeros(1, 1)}, 0.05)
    expected = 0.0
    for step in range(900):
        nn.init.constant_(net.weight, math.sin(step / 50))
        ema.update(net, step)
        images = min(half_life, 0.05 * step * batch)
        beta = 0.5 ** (batch / images) if images else 0.0
        expected = beta * expected + (1 - beta) * math.sin(step / 50)
        assert float(ema.weights["weight"]) == pytest.approx(expected, abs=1e-5)
