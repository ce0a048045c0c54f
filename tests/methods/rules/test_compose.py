import pytest
from pydantic import ValidationError

from methods.rules import make_rule
from tests.methods.rules.calls import guide, outputs


@pytest.mark.parametrize("name", ["apg+cfg-zero", "fdg+interval+apg"])
def test_two_rules_that_override_combine_do_not_compose(name):
    with pytest.raises(ValueError, match=r"(apg and cfg-zero|fdg and apg) do not compose.*combine"):
        make_rule(name)


def test_repeated_rule_is_refused():
    with pytest.raises(ValueError, match="names a rule twice"):
        make_rule("interval+apg+interval")


def test_knobs_are_passed_to_their_rule_and_recorded_under_its_name():
    rule = make_rule("interval+rescale", {"interval": {"low": 0.1}, "rescale": {"phi": 0.5}})
    rescale = {"rescale.phi": 0.5, "rescale.space": "denoised"}
    assert rule.settings() == {"interval.low": 0.1, "interval.high": 2.9, **rescale}
    assert rule.name == "interval+rescale"
    with pytest.raises(ValidationError, match="phi"):
        make_rule("interval+rescale", {"interval": {"phi": 0.5}})


def test_corrections_are_applied_in_order():
    d_cond, d_ref, _ = outputs(3, 8, 8)
    rescaled = guide(make_rule("rescale"), d_cond, d_ref, g=9.0)
    both = guide(make_rule("rescale+dynamic-threshold"), d_cond, d_ref, g=9.0)
    s = rescaled.flatten(1).abs().quantile(0.995, dim=1).clamp_min(1)[:, None, None, None]
    assert (both - rescaled.clamp(-s, s) / s).abs().max() < 1e-12
    other = guide(make_rule("dynamic-threshold+rescale"), d_cond, d_ref, g=9.0)
    assert (both - other).abs().max() > 0.1
