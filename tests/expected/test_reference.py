"""The committed results support the statements of the documentation."""

from pathlib import Path

import pandas as pd
import pytest

from bench.experiment.suite import read_suite
from methods import METHODS
from methods.rules import RULES

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
FOLDER = REFERENCE / "embedded"
SEEDS = REFERENCE / "modes1d-seeds"

_VECTORS = {"rescale", "dynamic-threshold", "fdg", "pag", "seg"}
UNFIT: dict[tuple[str, str], set[str]] = {
    ("digits", "edm"): set(),
    ("modes1d", "edm"): _VECTORS,
    ("modes1d", "oracle"): _VECTORS | {"skip-layer", "s2"},
    ("modes2d", "edm"): _VECTORS,
    ("modes2d", "oracle"): _VECTORS | {"skip-layer", "s2"},
}
"""Rules that need images, attention or blocks."""


LATER = {"sct", "scd", "tcm", "imm", "alpha-flow"}
"""Methods newer than the committed results."""


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(FOLDER / "summary.csv.gz")


@pytest.fixture(scope="module")
def seeds():
    return pd.read_csv(SEEDS / "summary.csv.gz")


def values(table, dataset, method, metric, steps):
    chosen = table[
        (table.dataset == dataset)
        & (table.method == method)
        & (table.metric == metric)
        & (table.steps == steps)
        & table.rule.isna()
    ]
    return chosen.groupby("guidance")["value"]


def test_digits_hold_the_numbers_of_their_presets(table):
    fd, precision = (values(table, "digits", "edm", m, 18).mean() for m in ("fd", "precision_k3"))
    assert fd[14.0] >= 100
    assert precision[14.0] <= 0.4
    igct = values(table, "digits", "igct", "fd", 1).mean()
    assert list(igct.index) == [float(g) for g in range(1, 15)]
    assert igct.max() <= 20
    assert igct.max() / igct.min() <= 1.5
    assert values(table, "digits", "igct", "class_accuracy", 1).min().min() >= 0.93


def test_toys_hold_the_numbers_of_their_presets(table, seeds):
    w1 = values(seeds, "modes1d", "igct", "w1", 2)
    assert (w1.count() == 3).all()
    for found in (table, seeds):
        shift = values(found, "modes1d", "oracle", "shift", 18).mean()
        assert shift[14.0] == pytest.approx(2.88, abs=0.15)
        w1 = values(found, "modes1d", "igct", "w1", 2)
        assert w1.max().max() <= 0.04
        assert values(found, "modes1d", "igct", "within3", 2).min().min() >= 0.98
        assert values(found, "modes1d", "edm", "w1", 18).min()[14.0] >= 8 * w1.max()[14.0]
    assert values(table, "modes2d", "oracle", "shift", 18).mean()[14.0] == pytest.approx(
        4.08, abs=0.2
    )


def test_every_missing_value_has_its_reason(table):
    missing = table[table.value.isna()]
    assert set(missing.status) == {"skip"}
    assert missing.reason.notna().all()


@pytest.mark.parametrize("name", ["digits", "modes1d", "modes2d"])
def test_every_rule_and_method_stands_at_every_scale(table, name):
    scales = {float(g) for g in range(1, 14)}
    study = next(s for s in read_suite("reference").study if s.dataset == name and len(s.rules) > 1)
    assert set(study.rules) >= set(RULES) - {"cfg", "fkc", "sliding-window"}
    own = table[table.dataset == name]
    methods = {method for method, cls in METHODS.items() if name in cls.presets}
    for method in methods - {"ct"} - LATER:
        found = own[(own.method == method) & own.rule.isna()]
        assert set(found.guidance) >= scales, method
    for method in study.methods:
        for rule in study.rules:
            found = own[(own.method == method) & (own.rule == rule)]
            assert set(found.guidance) >= set(study.guidance) - {1.0}, (method, rule)
            unfit = rule in UNFIT[name, method]
            assert set(found.status) == {"skip" if unfit else "ok"}, (method, rule)


def test_tables_and_figures_lie_beside_them():
    assert "FD classifier @300" in (FOLDER / "tables.md").read_text(encoding="utf-8")
    readme = (FOLDER.parents[2] / "README.md").read_text(encoding="utf-8")
    for folder, name in ((FOLDER, "digits-guidance"), (SEEDS, "modes1d-modes")):
        assert (folder / "figures" / f"{name}.png").is_file()
        assert f"results/reference/{folder.name}/figures/{name}.png" in readme
