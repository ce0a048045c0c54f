"""What is known of every rule: a numpy version of its formula, a closed form, and neutral knobs.

`tests/bench/plugins/test_rule_conformance.py` runs the battery over every rule, which holds that
neutral knobs are plain guidance and that the counted evaluations are those announced.
"""

from importlib import import_module
from inspect import getsource, isfunction

import pytest

from methods.rules import RULES

HELD = {
    "adaptive": (
        "adaptive.test_against_numpy", "adaptive.test_stopped_reference_of_a_gaussian"
    ),
    "apg": (
        "apg.test_trajectory_against_numpy",
        "apg.test_update_with_eta_0_is_orthogonal_and_within_the_radius",
    ),
    "autoguidance": (
        "autoguidance.test_trajectory_against_the_formula",
        "autoguidance.test_equal_networks_give_no_guidance",
    ),
    "beta-cfg": ("beta_cfg.test_against_numpy", "beta_cfg.test_ends_are_the_reference"),
    "c2fg": ("c2fg.test_samples_against_numpy", "c2fg.test_scale_runs_from_one_to_g"),
    "cads": (
        "cads.test_annealed_labels_against_the_paper",
        "cads.test_rescaled_labels_keep_mean_and_deviation",
    ),
    "cfg": ("cfg.test_against_numpy", "cfg.test_gaussians_become_the_gaussian_of_the_closed_form"),
    "cfg-mp": ("cfg_mp.test_against_numpy", "cfg_mp.test_a_move_is_worth_half_a_unit_of_scale"),
    "cfg-zero": (
        "cfg_zero.test_against_numpy_in_slopes",
        "cfg_zero.test_zero_velocity_in_all_steps_returns_the_scaled_noise",
    ),
    "cfgpp": (
        "cfgpp.test_against_the_published_algorithm",
        "cfgpp.test_step_equals_cfg_at_a_scale_that_depends_on_the_step",
    ),
    "dynamic-threshold": (
        "dynamic_threshold.test_against_numpy",
        "dynamic_threshold.test_percentile_0_is_a_plain_clip",
    ),
    "fbg": (
        "fbg.test_against_the_published_update",
        "fbg.test_update_is_the_log_ratio_of_the_transitions",
    ),
    "fdg": (
        "fdg.test_against_numpy",
        "fdg.test_brightness_gets_the_low_scale_and_a_checkerboard_the_high_scale",
    ),
    "fkc": (
        "fkc.test_weights_against_numpy",
        "fkc.test_particles_follow_the_tilted_density_that_cfg_misses",
    ),
    "foresight": (
        "foresight.test_against_numpy",
        "foresight.test_loop_at_high_noise_shifts_the_state_by_the_closed_form",
    ),
    "gibbs": (
        "gibbs.test_against_numpy", "gibbs.test_rounds_shrink_two_gaussians_by_the_closed_form"
    ),
    "higs": ("higs.test_against_numpy", "higs.test_constant_output_is_not_changed"),
    "icg": (
        "icg.test_guided_output_against_the_formula",
        "icg.test_average_over_draws_equals_the_average_over_classes",
    ),
    "interval": (
        "interval.test_trajectory_against_numpy",
        "interval.test_full_interval_is_cfg_and_interval_outside_the_grid_is_off",
    ),
    "mambo-g": (
        "mambo_g.test_against_numpy",
        "mambo_g.test_distant_branches_are_unguided_and_close_branches_get_cfg",
    ),
    "momentum": (
        "momentum.test_against_numpy",
        "momentum.test_equal_steps_without_memory_are_those_of_adams_and_bashforth",
    ),
    "monotone": (
        "monotone.test_schedules_against_numpy",
        "monotone.test_mean_of_g_minus_1_equals_that_of_cfg",
    ),
    "pag": (
        "attention.test_changed_block_against_numpy",
        "attention.test_equal_positions_are_not_guided",
    ),
    "rect-cfgpp": ("rect_cfgpp.test_against_numpy", "rect_cfgpp.test_equal_gaussians_give_cfg"),
    "reg": (
        "reg.test_against_finite_differences",
        "reg.test_gaussian_scales_the_update_by_its_share_of_the_variance",
    ),
    "rescale": (
        "rescale.test_against_numpy",
        "rescale.test_full_rescale_keeps_the_contrast_of_every_sample",
    ),
    "s2": (
        "s2.test_against_a_network_whose_block_is_replaced_by_hand",
        "s2.test_skipped_output_equal_to_the_reference_adds_to_the_scale",
    ),
    "seg": (
        "attention.test_changed_block_against_numpy",
        "attention.test_infinite_blur_gives_every_position_the_mean_query",
    ),
    "self-guidance": (
        "self_guidance.test_against_numpy",
        "self_guidance.test_pulls_a_gaussian_linearly_to_its_mean",
    ),
    "skip-layer": (
        "skip_layer.test_against_a_network_whose_block_is_replaced_by_hand",
        "skip_layer.test_skipped_output_equal_to_the_reference_adds_to_the_scale",
    ),
    "sliding-window": (
        "sliding_window.test_against_numpy",
        "sliding_window.test_pixelwise_denoiser_is_not_guided",
    ),
    "smc-cfg": (
        "smc_cfg.test_against_numpy",
        "smc_cfg.test_rate_one_subtracts_the_gain_from_each_velocity",
    ),
    "tcfg": (
        "tcfg.test_against_singular_vectors_from_numpy", "tcfg.test_parallel_outputs_give_cfg"
    ),
    "tdg": ("tdg.test_against_numpy", "tdg.test_null_decoy_is_cfg_times_the_factor"),
    "tsg": (
        "tsg.test_trajectory_against_numpy", "tsg.test_unperturbed_level_gives_no_guidance"
    ),
    "zigzag": (
        "zigzag.test_against_numpy", "zigzag.test_state_of_equal_gaussians_after_one_zigzag"
    ),
}  # fmt: skip
"""By rule, the test against numpy and the test of a closed form, as FILE.TEST."""


def test_every_rule_is_held_by_tests():
    assert HELD.keys() == RULES.keys(), "a rule needs a numpy version and a closed form as tests"


@pytest.mark.parametrize("name", sorted(HELD))
def test_tests_of_a_rule_exist_and_are_against_numpy(name):
    against, closed = HELD[name]
    assert against != closed
    for place in (against, closed):
        file, test = place.split(".")
        module = import_module(f"tests.methods.rules.test_{file}")
        assert isfunction(getattr(module, test, None)), f"{place} does not exist"
        # Tests of several rules are in one file.
        assert file == name.replace("-", "_") or f'"{name}"' in getsource(module)
    assert hasattr(import_module(f"tests.methods.rules.test_{against.split('.')[0]}"), "np")


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_has_neutral_knobs(name):
    rule = RULES[name]
    assert bool(rule.neutral) == (name != "cfg")
    neutral = rule.knobs_type.model_validate(dict(rule.neutral))
    assert (neutral == rule.knobs_type()) == (name == "cfg"), "the default is CFG already"
