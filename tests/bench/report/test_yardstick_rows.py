"""Guided samples of the closed-form denoiser against the density that guidance seems to name."""

import numpy as np
import pytest
import torch

from bench.sweep.generate import generate
from methods import Guidance
from methods.oracle import Oracle, OracleConfig
from methods.rules import make_rule
from methods.spec import DataSpec, Mixture
from metrics import METRICS
from metrics.base import ExactMixture, SampleSet
from metrics.tilt import at_guidance, tilt_distance
from tests.bench.helpers import bench, rows_of

OVERLAP = Mixture(means=(((0.5,),), ((-0.5,),)), std=0.6)
EXACT = ExactMixture((np.array([[0.5]]), np.array([[-0.5]])), 0.6)


def sampled(g, rule="cfg", steps=40, n=2000):
    method = Oracle(OracleConfig(), DataSpec("overlap", (1,), 2, OVERLAP))
    stream = generate(
        method, method.build(), Guidance(g, make_rule(rule)), steps, 0, n,
        batch=n, device=torch.device("cpu"),
    )  # fmt: skip
    ((x, labels),) = list(stream)
    fake = SampleSet(n, labels.numpy(), {"identity": x.numpy()})
    return at_guidance(fake, g)


def measured(name, fake):
    real = SampleSet(n=0, labels=np.zeros(0, np.int64), exact=EXACT)
    return METRICS[name]().compute(real=real, fake=fake, extractor="")


def test_without_guidance_the_samples_are_of_the_class_density():
    # The grid's last level leaves them a little off; their entropy is estimated from neighbours.
    assert measured("w1_tilted", sampled(1.0)).value < 0.03
    assert abs(measured("kl_tilted", sampled(1.0)).value) < 0.03


@pytest.mark.parametrize("g", [3.0, 8.0])
def test_guidance_does_not_sample_the_tilted_density(g):
    fake = sampled(g)
    w1, kl = measured("w1_tilted", fake), measured("kl_tilted", fake)
    assert w1.value > 0.05 + 5 * w1.se
    assert kl.value > 5 * kl.se
    # Finer steps do not bring them closer: it is not the sampler's error.
    fine = measured("w1_tilted", sampled(g, steps=160))
    assert fine.value == pytest.approx(w1.value, abs=0.01)


def test_guidance_overshoots_the_tilted_density():
    g = 8.0
    fake = sampled(g)
    own = fake.features["identity"][fake.labels == 0]
    # Upwards of the target by more than the whole tilt.
    assert own.mean() - 0.5 > 1.2 * tilt_distance(EXACT, g)


def test_sweep_passes_the_scale_to_metrics(tmp_path):
    ran = bench(
        "sweep", "-m", "oracle", "-d", "modes1d", "-g", "1,6", "-n", "60", "--metric", "w1",
        "--metric", "w1_tilted", "--metric", "kl_tilted", "--results", tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    for row in rows_of(tmp_path, "oracle"):
        found = {v.metric: v for v in row.values}
        assert found.keys() == {"w1", "w1_tilted", "kl_tilted"}
        # Classes that are far apart are not tilted, so both distances agree at every scale.
        assert found["w1_tilted"].value == pytest.approx(found["w1"].value, abs=1e-5)
        assert found["w1_tilted"].direction == "none"
        assert len(found["kl_tilted"].replicates) == 20
    off, on = ({v.metric: v for v in r.values} for r in rows_of(tmp_path, "oracle"))
    # CFG's samples are narrower and have moved.
    assert on["kl_tilted"].value > off["kl_tilted"].value + 5 * on["kl_tilted"].se
    (real,) = rows_of(tmp_path, "real")
    assert {v.metric for v in real.values} == {"w1", "w1_tilted", "kl_tilted"}
