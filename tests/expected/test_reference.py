"""The committed results say what the documentation says of them."""

from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[2] / "results" / "reference" / "embedded"


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(FOLDER / "summary.csv")


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
    assert fd[13.0] >= 100
    assert precision[13.0] <= 0.4
    igct = values(table, "digits", "igct", "fd", 1).mean()
    assert list(igct.index) == [float(g) for g in range(1, 14)]
    assert igct.max() <= 20
    assert igct.max() / igct.min() <= 1.5
    assert values(table, "digits", "igct", "class_accuracy", 1).min().min() >= 0.93


def test_toys_hold_the_numbers_of_their_presets(table):
    shift = values(table, "modes1d", "oracle", "shift", 18).mean()
    assert shift[14.0] == pytest.approx(2.88, abs=0.15)
    w1 = values(table, "modes1d", "igct", "w1", 2)
    assert (w1.count() == 3).all()
    assert w1.max().max() <= 0.04
    assert values(table, "modes1d", "igct", "within3", 2).min().min() >= 0.98
    assert values(table, "modes1d", "edm", "w1", 18).min()[14.0] >= 8 * w1.max()[14.0]
    assert values(table, "modes2d", "oracle", "shift", 18).mean()[14.0] == pytest.approx(
        4.08, abs=0.2
    )


def test_every_missing_value_has_its_reason(table):
    missing = table[table.value.isna()]
    assert set(missing.status) == {"skip"}
    assert missing.reason.notna().all()


def test_tables_and_figures_lie_beside_them():
    assert "FD classifier @500" in (FOLDER / "tables.md").read_text(encoding="utf-8")
    readme = (FOLDER.parents[2] / "README.md").read_text(encoding="utf-8")
    for name in ("digits-fd-classifier", "modes1d-densities"):
        assert (FOLDER / "figures" / f"{name}.png").is_file()
        assert f"results/reference/embedded/figures/{name}.png" in readme
