"""The committed results support the statements of the documentation."""

from itertools import product
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
TRAINED = ("digits", "modes1d", "modes2d")
UNFIT: dict[tuple[str, str], set[str]] = {
    ("digits", "edm"): set(),
    ("modes1d", "edm"): _VECTORS,
    ("modes1d", "oracle"): _VECTORS | {"skip-layer", "s2"},
    ("modes2d", "edm"): _VECTORS,
    ("modes2d", "oracle"): _VECTORS | {"skip-layer", "s2"},
}
"""Rules that need images, attention or blocks."""

FEW_STEP = [
    *((method, name) for method in ("sct", "scd", "tcm", "imm", "alpha-flow") for name in TRAINED),
    *(("ct", f"{name}-ict") for name in TRAINED),
    *(("meanflow", f"{name}-interval") for name in TRAINED),
]
"""Methods and presets whose expected numbers are those of the committed runs."""


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
    for method in methods - {"ct", "sct", "tcm"}:
        found = own[(own.method == method) & own.rule.isna()]
        assert set(found.guidance) >= scales, method
    for method in study.methods:
        for rule in study.rules:
            found = own[(own.method == method) & (own.rule == rule)]
            assert set(found.guidance) >= set(study.guidance) - {1.0}, (method, rule)
            unfit = rule in UNFIT[name, method]
            assert set(found.status) == {"skip" if unfit else "ok"}, (method, rule)


def numbers(text):
    return [float(part) for part in text.split("/")]


@pytest.mark.parametrize(("method", "preset"), FEW_STEP)
def test_presets_expect_the_committed_values(table, method, preset):
    """Keys such as "w1 at g = 1 / 4, 2 steps" and "w1, 1 / 2 steps"; values to their last digit."""
    found = METHODS[method].presets[preset]
    run = f"{preset}-{method}-s0"
    own = table[(table.run == run) & table.rule.isna()].set_index(["metric", "guidance", "steps"])
    assert found.expected
    for key, text in found.expected.items():
        metric, _, rest = key.partition(" at g = " if " at g = " in key else ", ")
        scales, _, steps = rest.rpartition(", ")
        name = {"precision": "precision_k3", "recall": "recall_k3"}.get(metric, metric)
        cells = product(
            numbers(scales or "1"), numbers(steps.removesuffix("steps").removesuffix("step"))
        )
        for (g, count), shown in zip(cells, text.split(" / "), strict=True):
            digits = len(shown.partition(".")[2])
            assert own.value[name, g, count] == pytest.approx(
                float(shown), abs=0.501 * 10**-digits
            ), key


@pytest.mark.parametrize("name", TRAINED)
def test_few_step_methods_have_one_and_two_steps(table, name):
    for method, preset in FEW_STEP:
        if METHODS[method].presets[preset].dataset == name:
            own = table[(table.run == f"{preset}-{method}-s0") & (table.status == "ok")]
            assert set(own.steps) >= {1, 2}, (method, preset)


def test_tables_and_figures_lie_beside_them():
    assert "FD classifier @300" in (FOLDER / "tables.md").read_text(encoding="utf-8")
    readme = (FOLDER.parents[2] / "README.md").read_text(encoding="utf-8")
    for folder, name in ((FOLDER, "digits-guidance"), (SEEDS, "modes1d-modes")):
        assert (folder / "figures" / f"{name}.png").is_file()
        assert f"results/reference/{folder.name}/figures/{name}.png" in readme


def test_photographs_show_what_their_page_says():
    table = pd.read_csv(REFERENCE / "photographs" / "summary.csv")
    table = table[table.extractor.isna() | (table.extractor == "classifier")]
    precision, accuracy = (
        values(table, "cifar16", "edm", m, 18).mean() for m in ("precision_k3", "class_accuracy")
    )
    assert precision[1.0] - precision[13.0] >= 0.3
    assert accuracy[13.0] - accuracy[1.0] >= 0.5
    for steps in (1, 2):
        igct = {
            m: values(table, "cifar16", "igct", m, steps).mean()
            for m in ("precision_k3", "recall_k3", "contrast_ratio", "class_accuracy", "fd")
        }
        assert set(igct["fd"].index) >= {1.0, 13.0}
        assert 0.925 <= igct["precision_k3"].min() <= igct["precision_k3"].max() <= 0.945
        assert 0.675 <= igct["recall_k3"].min() <= igct["recall_k3"].max() <= 0.735
        assert 0.385 <= igct["class_accuracy"].min() <= igct["class_accuracy"].max() <= 0.405
        assert 4 <= igct["fd"].min() <= igct["fd"].max() <= 5.1
        assert igct["contrast_ratio"].min() >= 0.95
        guided = values(table, "cifar16", "mg-ct", "class_accuracy", steps).mean()
        assert guided[1.0] >= 0.65
        assert 0.74 <= guided[4.0] <= 0.77
