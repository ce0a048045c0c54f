"""The committed results support the statements of the documentation."""

from pathlib import Path

import pandas as pd
import pytest

from bench.experiment.suite import read_suite
from methods import METHODS

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
FOLDER = REFERENCE / "embedded"
SEEDS = REFERENCE / "modes1d-seeds"

_VECTORS = {"rescale", "dynamic-threshold", "fdg", "pag", "seg"}
UNFIT: dict[str, set[str]] = {"digits": set(), "modes1d": _VECTORS, "modes2d": _VECTORS}
"""Rules that need images or attention."""


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(FOLDER / "summary.csv")


@pytest.fixture(scope="module")
def seeds():
    return pd.read_csv(SEEDS / "summary.csv")


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
    swept = {study.dataset: study.rules for study in read_suite("reference").study}
    assert len(swept[name]) > 17
    own = table[table.dataset == name]
    for method in {method for method, cls in METHODS.items() if name in cls.presets} - {"ct"}:
        found = own[(own.method == method) & own.rule.isna()]
        assert set(found.guidance) >= scales, method
    for method in ("edm",) if name == "digits" else ("edm", "oracle"):
        for rule in swept[name]:
            found = own[(own.method == method) & (own.rule == rule)]
            assert set(found.guidance) >= scales - {1.0}, (method, rule)  # at 1 no rule acts
            assert set(found.status) == {"skip"} if rule in UNFIT[name] else {"ok"}, rule


def test_tables_and_figures_lie_beside_them():
    assert "FD classifier @300" in (FOLDER / "tables.md").read_text(encoding="utf-8")
    readme = (FOLDER.parents[2] / "README.md").read_text(encoding="utf-8")
    for folder, name in ((FOLDER, "digits-fd-classifier"), (SEEDS, "modes1d-densities")):
        assert (folder / "figures" / f"{name}.png").is_file()
        assert f"results/reference/{folder.name}/figures/{name}.png" in readme
