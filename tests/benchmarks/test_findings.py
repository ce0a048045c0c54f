"""The statistics of the findings against closed forms and scipy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.findings import learnt
from benchmarks.findings.common import OUT, PRESETS, over_seeds, place_of
from benchmarks.findings.embedding import jitter
from benchmarks.findings.learnt import Loss, against_best
from benchmarks.findings.narrowing import ALL, FIRST, narrowed, principal, spreads, variances
from benchmarks.findings.pull import resampled, share
from benchmarks.findings.spread import STD, chain
from methods import METHODS


def test_jitter_is_zero_for_exponential_curve_and_four_times_alternating_log():
    g = np.arange(1, 15)
    assert jitter(pd.Series(np.exp(0.3 * g - 1))) == pytest.approx(0, abs=1e-12)
    # (-1)^g has second differences of +-4.
    assert jitter(pd.Series(np.exp(0.1 * (-1.0) ** g))) == pytest.approx(0.4)


def test_over_seeds_gives_student_interval_and_none_for_one_seed():
    values = [0.3, 0.5, 1.0]
    frame = pd.DataFrame({"line": ["a"] * 3 + ["b"], "value": [*values, 2.0]})
    a, b = over_seeds(frame, ["line"]).itertuples()
    one_sample = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (a.low, a.high) == pytest.approx((one_sample.low, one_sample.high))
    assert (a.seeds, b.seeds) == (3, 1)
    assert np.isnan([b.low, b.high]).all()


def test_variant_with_settings_of_preset_shares_its_runs():
    assert place_of("window", "11 to 14.3", "igct", "modes1d", {"window": [11.0, 14.3]}) == PRESETS
    other = place_of("window", "1 to 3", "igct", "modes1d", {"window": [1.0, 3.0]})
    assert other == "findings-window-1-to-3"


def loss(value: float, se: float = 1.0, rule: str = "apg", dof: float = np.inf) -> Loss:
    return Loss(rule, 4.0, 18, 70, value, se, dof)


def test_loss_against_single_rule_has_student_interval():
    values = [0.3, 0.5, 1.0]
    (mean,) = learnt.over_seeds([[loss(v)] for v in values])
    _, low, high = against_best([mean], rules=1)
    one_sample = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((one_sample.low, one_sample.high))


def test_interval_of_loss_contains_best_rule_as_often_as_it_says():
    # Equally good rules, where the choice of the best would favour the rules most.
    draws = np.random.default_rng(0).normal(size=(2000, 20))
    intervals = [against_best([loss(v) for v in values], rules=20)[1:] for values in draws]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert covered >= 0.95
    chosen = [max(values) - 1.96 <= 0 <= max(values) + 1.96 for values in draws]
    assert np.mean(chosen) < 0.7  # what testing only the chosen rule would give


def test_rule_whose_loss_is_poorly_known_is_left_out():
    known = [loss(1.0), loss(2.0), loss(-1.0), loss(-2.0, se=3.9)]
    assert learnt.precise([*known, loss(5.0, se=4.1)]) == known
    assert learnt.precise([]) == []


def test_share_along_direction_is_the_squared_cosine():
    angle = np.linspace(0, 3, 50)
    along = np.stack([np.cos(angle), np.sin(angle)], 1)
    over, under = share(2 * along, np.tile([3.0, 0.0], (50, 1)))
    assert over / under == pytest.approx(np.cos(angle) ** 2)


def test_bootstrap_of_ratio_agrees_with_normal_interval_of_mean():
    values = np.random.default_rng(1).normal(3, 1, 400)
    low, high = resampled(values, np.ones(400))
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_spread_is_that_of_the_data_without_guided_rows():
    labels = np.repeat([0, 1], 20_000)
    x = np.random.default_rng(0).normal(size=(40_000, 3)) * [1.0, 2.0, 0.5] + 10 * labels[:, None]
    own = variances(x, labels, principal(x, labels))
    assert own == pytest.approx(np.tile([0.25, 1.0, 4.0], (2, 1)), rel=0.05)


def test_without_guided_rows_the_chain_is_that_of_consistency_training():
    config = METHODS["igct"].presets["modes2d"].config.model_copy(update={"p_max": 0.0})
    own = STD**2 * np.ones(1)
    # The samples of `chain` start from data with noise.
    start = config.sigma_max / np.hypot(config.sigma_max, STD)
    exact = own * (start * chain(config, config.last_stage)) ** 2
    assert narrowed(own, config) == pytest.approx(exact, rel=1e-6)


def test_spreads_are_over_those_of_the_data():
    data = np.array([[1.0, 4.0], [1.0, 2.0]])
    found = spreads(data * [[1.0, 0.25], [1.0, 0.25]], data)
    assert found == {ALL: pytest.approx(np.sqrt(3.5 / 8)), FIRST: 0.5}


def test_where_all_rows_are_guided_noise_is_only_made_smaller():
    # Above the level 2 the denoised image is the mean, so noise of sigma 80 arrives as sigma 2.
    settings = {"p_max": 1.0, "window": (2.0, 2.0 + 1e-6), "last_stage": 12}
    config = METHODS["igct"].presets["modes2d"].config.model_copy(update=settings)
    v = np.array([0.04, 1.0, 60.0])
    assert narrowed(v, config) == pytest.approx(v * 4 / (v + 4), rel=5e-3)


def test_linear_fit_to_guided_rows_has_the_closed_form():
    # One step from t to r, by least squares on drawn rows.
    rng, n, v, t, r, p = np.random.default_rng(2), 400_000, 4.0, 3.0, 2.0, 0.3
    y, other, eps = rng.normal(size=(3, n)) * [[2.0], [2.0], [1.0]]
    guided = rng.random(n) < p
    x_t, x_r = y + t * eps, y + r * eps + np.where(guided, (r - t) * (y - other) / t, 0)
    slope = (x_t @ x_r) / (x_t @ x_t)
    assert slope == pytest.approx((1 - p) * (v + r * t) / (v + t**2) + p * r / t, abs=3e-3)


def test_page_of_narrowing_shows_the_values_of_its_table():
    table = pd.read_csv(OUT / "narrowing.csv").set_index(["data", "what", "line", "source"])["mean"]
    lines = {
        "p_max = 0": "p_max 0",
        "p_max = .5, window 1 to 3": "p_max 0.5",
        "p_max = 1, window 11 to 14.3": "window 11 to 14.3",
        "p_max = 1, window 4 to 6": "window 4 to 6",
        "p_max = 1, window 1 to 3": "window 1 to 3",
    }
    page = Path("docs/findings/narrowing.md").read_text()
    shown = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| p_")]
    assert [row[0] for row in shown] == list(lines)
    for name, *cells in shown:
        for what, cell in zip((ALL, FIRST), cells, strict=True):
            for source, value in zip(("closed form", "measured"), cell.split(" / "), strict=True):
                mean = table["cifar16", what, lines[name], source]
                assert float(value) == pytest.approx(mean, abs=0.0051)
