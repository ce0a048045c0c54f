import pytest

from bench.evaluation.makers import Makers
from bench.experiment.protocols import PROTOCOLS, find_protocol, title
from bench.experiment.suite import Study
from bench.system.errors import UserError
from metrics import EXTRACTORS, METRICS
from metrics.catalogue import SUMMARIES
from tests.bench.evaluation.helpers import Small
from tests.bench.helpers import TINY_IMAGES, bench, rows_of, sets


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_protocols_name_registered_metrics_and_extractors(protocol):
    assert set(protocol.extractors) <= EXTRACTORS.keys()
    assert set(protocol.metrics) <= METRICS.keys()
    for measure in protocol.measures:
        assert METRICS[measure.metric].uses_extractor
        assert measure.extractor in SUMMARIES


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_metrics_agree_with_the_protocol_summary(protocol):
    for measure in protocol.measures:
        metric = METRICS[measure.metric]()
        if hasattr(metric, "k"):
            assert f"k = {metric.k}" in protocol.summary
            assert ("ties inside" if metric.closed else "ties outside") in protocol.summary
    if protocol.samples is not None:
        assert f"{protocol.samples:,} images" in protocol.summary


def test_protocols_of_the_field():
    assert set(PROTOCOLS) == {
        "edm-fid50k", "adm", "nvidia-pr50k3", "dinov2-pr50k3", "dgm-eval-dinov2", "cmmd", "offline",
    }  # fmt: skip
    adm = PROTOCOLS["adm"]
    assert adm.has("fd", "inception-spatial")
    assert adm.has("precision_k3", "inception")
    assert not adm.has("precision_k3", "inception-spatial")
    assert (adm.samples, adm.reference) == (50_000, 10_000)
    assert any("float16" in note for note in PROTOCOLS["nvidia-pr50k3"].notes)
    assert PROTOCOLS["dgm-eval-dinov2"].extractors == ("dinov2",)


def test_title_is_fid_only_for_50_000_images_on_inception():
    assert title("FD", "fd", "inception", 50_000, "edm-fid50k") == "FID"
    assert title("FD", "fd", "inception-spatial", 50_000, "adm") == "sFID"
    assert title("FD", "fd", "inception", 10_000, "edm-fid50k") == "FD inception @10000"
    assert title("FD", "fd", "inception-clean", 50_000) == "FD inception-clean @50000"
    assert title("FD", "fd", "efficientnet-lite0", 50_000, "offline").startswith("FD efficientnet")
    assert title("FD", "fd", "dinov2", 10_000, "dgm-eval-dinov2") == "FD-DINOv2 @10000"
    assert title("KID", "kid", "", 64) == "KID @64"


def test_unknown_protocol_suggests_the_closest_name():
    with pytest.raises(UserError, match=r"Did you mean 'edm-fid50k'"):
        find_protocol("edm-fid")


def test_protocols_are_listed():
    ran = bench("list", "protocols")
    assert ran.code == 0, ran.err
    for protocol in PROTOCOLS.values():
        assert f"{protocol.name} " in ran.out
        assert protocol.summary[:30] in ran.out


def test_protocol_sets_metrics_and_labels_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(Makers, "make", lambda *_: Small())
    monkeypatch.setattr(Small, "name", "efficientnet-lite0")
    ran = bench(
        "train", "-m", "ct", "-d", "digits", *sets(*TINY_IMAGES), "--init-from", "none",
        "--results", tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    sweep = ("sweep", "-g", "1", "-n", "12", "--steps", "1", "--results", tmp_path)
    ran = bench(*sweep, "--protocol", "offline")
    assert ran.code == 0, ran.err
    (row,) = rows_of(tmp_path, "ct")
    found = {(value.metric, value.extractor) for value in row.values}
    assert found == {(m.metric, m.extractor) for m in PROTOCOLS["offline"].measures}
    random = PROTOCOLS["offline"].model_copy(update={"labels": "random"})
    monkeypatch.setitem(PROTOCOLS, "offline", random)
    for more, computed in (("--labels", "balanced"), "0 cells"), ((), "1 cell"):
        ran = bench(*sweep, "--protocol", "offline", *more)
        assert (ran.code, f" {computed} computed" in ran.out) == (0, True), ran.err
    assert {row.labels for row in rows_of(tmp_path, "ct")} == {"balanced", "random"}
    for more, why in (
        (("--protocol", "offlin"), "Did you mean 'offline'"),
        (("--protocol", "offline", "--metric", "fd"), "drop --extractor and --metric"),
        (("--protocol", "offline", "--suite", "demo"), "drop --protocol"),
    ):
        ran = bench("sweep", *more, "--results", tmp_path)
        assert ran.code == 2
        assert why in ran.err


def study(**settings):
    return Study(dataset="digits", methods=("edm",), **settings)


def test_published_samples_with_random_labels_set_those_of_a_sweep():
    for name, labels in (
        ("edm-fid50k", "random"),
        ("adm", "random"),
        ("dinov2-pr50k3", "balanced"),
    ):
        assert study(protocol=name).sample_labels == labels
        assert study(protocol=name, labels="reference").sample_labels == "reference"
    assert study().sample_labels == "balanced"


def test_precision_and_recall_on_dinov2_have_three_neighbours_of_50000_images():
    protocol = PROTOCOLS["dinov2-pr50k3"]
    assert [m[:2] for m in protocol.measures] == [
        ("precision_k3", "dinov2"), ("recall_k3", "dinov2"),
    ]  # fmt: skip
    assert (protocol.samples, protocol.reference, protocol.reference_most) == (50_000,) * 3
    precision = METRICS["precision_k3"]()
    assert (precision.k, precision.closed) == (3, True)


def test_labels_of_published_samples_are_stated():
    assert PROTOCOLS["adm"].labels == PROTOCOLS["edm-fid50k"].labels == "random"
    assert PROTOCOLS["adm"].described.endswith("; random labels")
    assert PROTOCOLS["offline"].described == PROTOCOLS["offline"].summary
