import pytest

from bench.data import DATASETS
from bench.evaluation.makers import Makers
from bench.evaluation.prepare import prepare
from bench.experiment.protocols import PROTOCOLS
from bench.system.errors import UserError
from metrics import METRICS
from metrics.base import Extracted, Extractor


def names(evaluation):
    return [planned.metric.name for planned in evaluation.plan]


def test_costly_metrics_are_computed_only_on_request(tmp_path):
    data = DATASETS["modes1d"]()
    by_default = names(prepare(data, tmp_path))
    assert {"fd", "fd_corrected", "w1"} <= set(by_default)
    assert all(METRICS[name].default for name in by_default)
    asked = names(prepare(data, tmp_path, metrics=["mind", "fd"]))
    assert asked == ["mind", "fd"]


def test_plugin_metric_is_computed_by_default(tmp_path, monkeypatch):
    class Mine(METRICS["fd"]):
        name = "mine"

    monkeypatch.setitem(METRICS, "mine", Mine)
    data = DATASETS["modes1d"]()
    assert "mine" in names(prepare(data, tmp_path))
    monkeypatch.setattr(Mine, "default", False)
    assert "mine" not in names(prepare(data, tmp_path))


def test_unsuitable_requested_metric_is_reported_with_the_reason(tmp_path):
    data, told = DATASETS["digits"](), []
    asked = ["chroma_ratio", "w1", "contrast_ratio"]
    found = prepare(data, tmp_path, metrics=asked, extractors=["identity"], say=told.append)
    assert names(found) == ["contrast_ratio"]
    assert found.unmeasured == {
        "chroma_ratio": "chroma_ratio needs real images with colour, and these have none",
        "w1": "w1 is for vector data, not image data",
    }
    assert sorted(told) == sorted(f"Not measured: {r}." for r in found.unmeasured.values())
    with pytest.raises(
        UserError, match="against digits/reference: chroma_ratio needs real images with colou"
    ):
        prepare(data, tmp_path, metrics=["chroma_ratio"], extractors=["identity"])


def test_default_metrics_for_other_data_are_skipped_silently(tmp_path):
    assert prepare(DATASETS["modes1d"](), tmp_path).unmeasured == {}


class Named(Extractor):
    """Something under the name of a network, with random features of images."""

    has_logits = True

    def __init__(self, name):
        self.name, self.dim, self.hash = name, 6, name

    def __call__(self, samples):
        flat = samples.flatten(1).float()
        return Extracted(flat[:, :6], flat[:, :9])


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_protocol_is_planned_as_defined(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(Makers, "check", lambda self, names: None)
    monkeypatch.setattr(Makers, "make", lambda self, name, data: Named(name))
    evaluation = prepare(DATASETS["digits"](), tmp_path, protocol=protocol.name)
    assert evaluation.unmeasured == {}
    planned = evaluation.plan
    found = {(p.metric.name, p.extractor) for p in planned}
    assert found == {(m.metric, m.extractor) for m in protocol.measures}
    assert len(planned) == len(protocol.measures)


def test_image_protocol_does_not_fit_vectors(tmp_path):
    with pytest.raises(UserError, match="No metric can be computed against modes1d/reference"):
        prepare(DATASETS["modes1d"](), tmp_path, protocol="offline")
