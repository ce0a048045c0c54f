from bench.data import DATASETS
from bench.evaluate import prepare
from metrics import METRICS


def names(evaluation):
    return [planned.metric.name for planned in evaluation.plan]


def test_what_costs_much_is_computed_only_when_asked_for(tmp_path):
    data = DATASETS["modes1d"]()
    by_default = names(prepare(data, tmp_path))
    assert {"fd", "fd_corrected", "w1"} <= set(by_default)
    assert all(METRICS[name].default for name in by_default)
    asked = names(prepare(data, tmp_path, metrics=["mind", "fd"]))
    assert asked == ["mind", "fd"]


def test_a_metric_of_a_plugin_is_a_default_one(tmp_path, monkeypatch):
    class Mine(METRICS["fd"]):
        name = "mine"

    monkeypatch.setitem(METRICS, "mine", Mine)
    data = DATASETS["modes1d"]()
    assert "mine" in names(prepare(data, tmp_path))
    monkeypatch.setattr(Mine, "default", False)
    assert "mine" not in names(prepare(data, tmp_path))
