from __future__ import annotations

import pytest

from bench.experiment.formatting import error_decimals, number, with_error
from metrics.base import Estimate
from metrics.errors import wilson


@pytest.mark.parametrize(
    ("given", "digits", "shown"),
    [(0.0, 3, "0.000"), (0.0002, 3, "2.0e-04"), (-0.05, 3, "-0.050"), (2e7, 1, "2.0e+07")],
)
def test_number_never_rounds_to_a_false_zero(given, digits, shown):
    assert number(given, digits) == shown


@pytest.mark.parametrize(
    ("se", "digits"),
    [(0.123, 2), (0.0996, 2), (0.0994, 3), (1.23, 1), (12.3, 0), (456.0, 0), (1e-9, 6)],
)
def test_decimals_show_two_digits_of_the_error(se, digits):
    assert error_decimals(se) == digits


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (Estimate(3.4142, 0.123), ("3.41", "± 0.12")),
        (Estimate(234.56, 12.3), ("235", "± 12")),
        (Estimate(-0.00012, 0.00034), ("-0.00012", "± 0.00034")),
        (Estimate(3.4142), ("3.414", "")),
        (Estimate(1.0, 0.0, "binomial", *wilson(300, 300)), ("1.000", "≥ 0.987")),
        (Estimate(0.0, 0.0, "binomial", *wilson(0, 300)), ("0.000", "≤ 0.013")),
        (Estimate(0.5, 0.0), ("0.500", "± 0")),
    ],
)
def test_values_are_formatted_with_their_errors(found, shown):
    assert with_error(found, 3) == shown
