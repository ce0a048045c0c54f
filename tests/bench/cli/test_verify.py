"""`bench verify`: rows that are true, changed, misnamed or of another time."""

import json
import shutil

import pytest

from bench.training.card import WEIGHTS
from bench.training.checkpoint import load_weights, save_weights
from tests.bench.helpers import TOY_METRICS, bench

SWEEP = ("sweep", "-m", "oracle", "-d", "modes1d", "-n", "32", "-g", "1,4", *TOY_METRICS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    results = tmp_path_factory.mktemp("verify") / "results"
    ran = bench(*SWEEP, "--rule", "cfg,apg", "--knob", "apg.eta=0.5", "--results", results)
    assert ran.code == 0, ran.err
    return results


@pytest.fixture
def results(made, tmp_path):
    shutil.copytree(made, tmp_path / "results")
    return tmp_path / "results"


def verify(results, *more):
    return bench("verify", "--cells", "9", "--results", results, *more)


def without_hash(path):
    """What a row's file says, to be changed like a row from before there were hashes."""
    row = json.loads(path.read_text())
    row.pop("content_sha256", None)
    return row


def row_at(results, guidance, rule):
    for path in sorted(results.glob("default/cells/*oracle*/*.json")):
        row = without_hash(path)
        if (row["guidance"], row["rule"]) == (guidance, rule):
            return path, row
    raise AssertionError((guidance, rule))


def test_unchanged_rows_are_equal_bit_for_bit(results):
    ran = verify(results)
    assert ran.code == 0, ran.err
    assert "4 equal bit for bit, 0 equal up to rounding" in ran.out


def test_one_changed_digit_is_found(results):
    path, row = row_at(results, 4.0, "apg")
    row["values"][0]["value"] *= 1.01
    path.write_text(json.dumps(row))
    ran = verify(results)
    assert ran.code == 1
    assert f"{path}: differs, {row['values'][0]['metric']} is" in ran.out.replace("\n", "")
    assert "1 row differs from its recomputed values" in ran.err


@pytest.mark.usefixtures("empty_figures")
def test_changed_row_is_found_by_its_hash_without_recomputing(results):
    path, row = row_at(results, 4.0, "apg")
    text = path.read_text()
    digits = f"{row['values'][0]['value']!r}"
    path.write_text(text.replace(digits, f"1{digits}", 1))
    ran = bench("verify", "--cells", "1", "--results", results)
    assert ran.code == 1
    assert f"{path}: differs, it was changed since it was written" in ran.out.replace("\n", "")
    sweep = (*SWEEP, "--rule", "cfg,apg", "--knob", "apg.eta=0.5", "--results", results)
    for command in ("report", "--results", results), sweep:
        ran = bench(*command)
        assert (ran.code, f"{path} cannot be used: it was changed since" in ran.err) == (1, True)
    path.unlink()
    assert "1 cell computed" in bench(*sweep).out
    assert bench("report", "--results", results).code == 0


def test_row_copied_to_the_name_of_another_cell_is_found(results):
    path, row = row_at(results, 4.0, "")
    other, _ = row_at(results, 1.0, "")
    path.write_bytes(other.read_bytes())
    ran = bench(*SWEEP, "--results", results)
    assert "1 cell computed, 1 kept" in ran.out
    again = json.loads(path.read_text())
    assert (again["key"], again["values"]) == (row["key"], row["values"])


def test_rounding_is_distinguished_from_error(results):
    path, row = row_at(results, 4.0, "")
    row["values"][0]["value"] *= 1 + 1e-6
    path.write_text(json.dumps(row))
    ran = verify(results)
    assert ran.code == 0
    assert "3 equal bit for bit, 1 equal up to rounding (largest relative" in ran.out


def test_renamed_row_is_found(results):
    path, _ = row_at(results, 4.0, "apg")
    path.rename(path.with_name("0" * 24 + ".json"))
    ran = verify(results)
    assert ran.code == 1
    assert "its name is that of another cell; it should be" in ran.out


def test_incomparable_row_is_stale_with_the_reason(results):
    path, row = row_at(results, 4.0, "apg")
    row["knobs"]["apg.eta"] = 0.25  # not what the key says
    path.write_text(json.dumps(row))
    path, row = row_at(results, 4.0, "")
    row["values"][0]["signature"] = "other"
    path.write_text(json.dumps(row))
    ran = verify(results)
    assert ran.code == 0
    assert "the code or the settings of 'apg' have changed since" in ran.out
    assert f"the code or reference of {row['values'][0]['metric']} has changed" in ran.out
    assert "2 equal bit for bit" in ran.out
    assert "2 stale" in ran.out


def test_row_of_an_unloaded_plugin_rule_is_stale(results):
    path, row = row_at(results, 4.0, "apg")
    row["rule"] = "of-a-plugin"
    path.write_text(json.dumps(row))
    ran = verify(results)
    assert "its rule 'of-a-plugin' is not registered: name its plugin with --plugin" in ran.out


def floor_at(results):
    (path,) = results.glob("default/cells/*-real/*.json")
    return path, without_hash(path)


@pytest.mark.parametrize("field", ["value", "se"])
def test_changed_floor_is_found(results, field):
    path, row = floor_at(results)
    which = next(k for k, value in enumerate(row["values"]) if value[field])
    row["values"][which][field] *= 1.01
    path.write_text(json.dumps(row))
    ran = verify(results)
    assert ran.code == 1
    assert f"{path}: differs, {row['values'][which]['metric']} is" in ran.out.replace("\n", "")
    assert "3 equal bit for bit" in ran.out


def test_floor_of_other_samples_is_stale(results):
    path, row = floor_at(results)
    row["n"] += 1
    path.write_text(json.dumps(row))
    ran = verify(results)
    assert ran.code == 0
    assert f"{path}: stale, the samples of 'modes1d' have changed since" in ran.out
    row["n"] = 10**9
    path.write_text(json.dumps(row))
    assert "'modes1d' has fewer than 1000000000 training samples" in verify(results).out


def test_rows_of_every_kind_are_picked_by_the_seed(results):
    path, row = floor_at(results)
    row["values"][0]["value"] += 1.0
    path.write_text(json.dumps(row))
    one = ("verify", "--cells", "1", "--results", results)
    codes = [bench(*one, "--seed", seed).code for seed in range(12)]
    assert set(codes) == {0, 1}


def test_changed_weights_never_reuse_a_row(trained):
    results = trained
    sweep = ("sweep", "-m", "edm", "-g", "2", "-n", "16", *TOY_METRICS, "--results", results)
    assert "1 cell computed" in bench(*sweep).out
    assert "0 cells computed" in bench(*sweep).out
    (weights,) = results.glob(f"*/runs/*edm*/{WEIGHTS}")
    changed = load_weights(weights)
    name = sorted(changed)[0]
    save_weights(weights, changed | {name: changed[name] * 1.5})
    ran = bench("verify", "--results", results)
    assert "have changed since" in ran.out
    assert "1 cell computed" in bench(*sweep).out


def test_missing_rows_are_one_sentence(tmp_path):
    ran = bench("verify", "--results", tmp_path)
    assert ran.code == 1
    assert "There are no rows in" in ran.err
