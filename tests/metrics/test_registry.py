import subprocess
import sys

import pytest

import metrics
from metrics.base import Metric
from metrics.registry import EXTRACTORS, METRICS, find_extractor, find_metric, register

BUILT_IN = {
    *("class_accuracy", "contrast_ratio", "coverage_k3", "density_k3", "fd", "fd_corrected"),
    *("kid", "precision_k3", "recall_k3", "saturation", "shift", "w1", "within3"),
}
ON_REQUEST = {
    *("authenticity", "chroma_ratio", "class_fd", "cmmd", "fd_inf", "is_10", "is_5000"),
    *("kid_subsets", "kl_tilted", "mind", "nearest_ratio", "w1_tilted"),
}


def test_import_registers_everything():
    assert METRICS.keys() >= BUILT_IN | ON_REQUEST
    assert EXTRACTORS.keys() >= {"classifier", "identity", "inception", "inception-clean"}
    assert metrics.METRICS is METRICS


@pytest.mark.parametrize("name", sorted(BUILT_IN | ON_REQUEST))
def test_every_metric_is_described(name):
    metric = METRICS[name]()
    assert metric.name == name
    assert metric.label
    assert metric.summary
    assert metric.version >= 1
    assert metric.arrow == {"lower": "↓", "higher": "↑", "none": ""}[metric.direction]
    assert metric.minimum_n >= 1
    assert metric.default == (name in BUILT_IN)


def test_import_loads_no_other_metric_library():
    code = (
        "import sys, metrics\n"
        "heavy = {'torch_fidelity', 'cleanfid', 'torchvision', 'sklearn', 'prdc', 'bench',"
        " 'methods'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_unknown_names_list_suggestions():
    assert find_metric("fd") is METRICS["fd"]
    assert find_extractor("identity") is EXTRACTORS["identity"]
    with pytest.raises(KeyError, match=r"no metric named 'recal_k3'\. Did you mean 'recall_k3'"):
        find_metric("recal_k3")
    with pytest.raises(KeyError, match=r"Available: classifier, clip, dinov2, .*, identity"):
        find_extractor("vgg")


def test_taken_name_is_an_error():
    class Other(Metric):
        name = "fd"
        label = "Another"
        summary = "another metric of that name"
        direction = "lower"

        def compute(self, *, real, fake, extractor):
            return 0.0

    with pytest.raises(ValueError, match=r"'fd' is already registered by metrics\.frechet"):
        register(Other)
    assert register(METRICS["fd"]) is METRICS["fd"]
