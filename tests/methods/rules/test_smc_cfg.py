import numpy as np
import pytest

from methods.rules import make_rule
from tests.methods.rules import toy
from tests.methods.rules.calls import guide, outputs, point


@pytest.mark.parametrize("std", [1.0, 2.0])
def test_against_numpy(std):
    last = []

    def guide(x, d_c, d_u, s, step, stage):
        t = s / (std + s)
        v_c, v_u = ((x - d) / s - d / std for d in (d_c, d_u))
        e = v_c - v_u
        before = last[step - 1] if step else e
        corrected = e - 0.2 * np.sign((e - before) + 5 * before)
        if not stage:
            last.append(corrected)
        v = v_u + 3 * corrected
        return std * ((x / std) * (1 - t) - t * v)  # x_t = (1 - t) x / std, x_0 = x_t - t v

    found = toy.sample("smc-cfg", data_std=std)
    np.testing.assert_allclose(found, toy.integrate(guide), rtol=1e-9, atol=1e-9)


def test_rate_one_subtracts_the_gain_from_each_velocity():
    d_cond, d_ref, _ = outputs(3, 4, 4)
    rule, state = make_rule("smc-cfg", {"smc-cfg": {"rate": 1.0, "gain": 0.6}}), {}
    for step in range(2):
        found = guide(rule, d_cond, d_ref, at=point(step=step, start=2.0), state=state)
        update = (d_cond - d_ref).numpy()
        shrunk = np.sign(update) * (abs(update) - 0.6 * 2 / 3)
        np.testing.assert_allclose(found - d_ref, 3 * shrunk, rtol=1e-9, atol=1e-12)
