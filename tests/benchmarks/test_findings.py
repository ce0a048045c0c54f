"""The statistics of the findings against closed forms and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.findings.common import PRESETS, over_seeds, place_of
from benchmarks.findings.embedding import jitter


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
    assert np.isnan(b.low)
    assert np.isnan(b.high)


def test_variant_with_settings_of_preset_shares_its_runs():
    assert place_of("window", "11 to 14.3", "igct", "modes1d", {"window": [11.0, 14.3]}) == PRESETS
    other = place_of("window", "1 to 3", "igct", "modes1d", {"window": [1.0, 3.0]})
    assert other == "findings-window-1-to-3"
