"""`bench evaluate`: both sides in every form, what is refused, what is said."""

import csv
import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import api
from bench.evaluation import evaluate as evaluating
from bench.evaluation import makers
from bench.evaluation.plan import Plan
from bench.evaluation.result import shown
from bench.evaluation.sides import draw, file_source
from bench.system.devices import resolve_device
from metrics import EXTRACTORS, METRICS
from metrics.accumulate import Accumulator
from metrics.base import Estimate
from tests.bench.evaluation.helpers import Small, pictures, write_folder
from tests.bench.helpers import bench, contents

USUAL = ("--extractor", "small", "--metric", "fd", "--metric", "kid", "--metric", "precision_k3")


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    monkeypatch.setitem(EXTRACTORS, "small", Small)
    monkeypatch.setattr(Small, "seen", 0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folders(tmp_path):
    write_folder(tmp_path / "fake", pictures(seed=1, shift=10))
    write_folder(tmp_path / "real", pictures(60))
    return tmp_path


def evaluate(*arguments, out="out.json"):
    ran = bench("evaluate", *arguments, "--out", out)
    assert ran.code == 0, ran.err
    return json.loads(Path(out).read_text()), ran


def test_metrics_of_pixels_read_no_features(folders):
    report, _ = evaluate(
        "fake", "--reference", "real", "--metric", "saturation", "--metric", "contrast_ratio",
        "--extractor", "small",
    )  # fmt: skip
    assert Small.seen == 0
    assert [row["extractor"] for row in report["rows"]] == ["", ""]


def values(report):
    return {(row["metric"], row["extractor"]): row["value"] for row in report["rows"]}


def halves(x):
    return np.repeat([0, 1], len(x) // 2)


def direct(fake, real, metric, fake_labels=None):
    """The same without files; the reference is of two classes in turn, as the files are sorted."""
    sets = []
    real = sorted_by_class(real)
    for x, labels in ((real, halves(real)), (fake, fake_labels)):
        accumulator = Accumulator({"small": Small()}, {"moments", "features", "logits"})
        accumulator.update(torch.from_numpy(x), np.zeros(len(x), int) if labels is None else labels)
        sets.append(accumulator.finish())
    return METRICS[metric]().compute(real=sets[0], fake=sets[1], extractor="small")


def sorted_by_class(x):
    return np.concatenate([x[::2], x[1::2]])


def test_values_match_the_images(folders):
    report, ran = evaluate("fake", "--reference", "real", *USUAL)
    fake, real = sorted_by_class(pictures(seed=1, shift=10)), pictures(60)
    assert len(report["rows"]) == 3
    for row in report["rows"]:
        expected = direct(fake, real, row["metric"], halves(fake))
        assert row["value"] == pytest.approx(expected.value, rel=1e-6)
        assert row["se"] == pytest.approx(expected.se, rel=1e-6)
        assert row["replicates"] == pytest.approx(expected.replicates, rel=1e-6)
        assert row["low"] < row["value"] < row["high"]
        assert (row["n"], row["n_real"], row["extractor"]) == (40, 60, "small")
        assert row["extractor_hash"] == Small().hash
        assert (row["k"], row["ties"]) == ((3, "<=") if "k3" in row["metric"] else (None, ""))
    assert "FD small @40 ↓" in ran.out
    assert "FID" not in ran.out
    assert report["provenance"]["torch"]


@pytest.mark.parametrize("kind", ["zip", "npz"])
def test_folder_zip_and_npz_give_equal_values(folders, kind, tmp_path):
    from_folder, _ = evaluate("fake", "-r", "real", *USUAL)
    if kind == "zip":
        shutil.make_archive("fake_", "zip", "fake")
        path = "fake_.zip"
    else:
        x = sorted_by_class(pictures(seed=1, shift=10)).transpose(0, 2, 3, 1)
        np.savez("fake_.npz", arr_0=x, arr_1=np.repeat([0, 1], 20))
        path = "fake_.npz"
    found, _ = evaluate(path, "-r", "real", *USUAL)
    assert values(found) == values(from_folder)
    assert [r["samples_hash"] for r in found["rows"]] == [
        r["samples_hash"] for r in from_folder["rows"]
    ]


def test_reference_is_extracted_once_and_never_stale(folders, tmp_path):
    first, _ = evaluate("fake", "-r", "real", *USUAL)
    assert Small.seen == 100
    again, _ = evaluate("fake", "-r", "real", *USUAL)
    assert Small.seen == 140
    assert values(again) == values(first)
    kept = contents(tmp_path / "results" / "cache")
    assert {name.split("-")[0] for name in kept} == {"real", "root", "kernel", "radii"}
    # Another pixel.
    image = pictures(60)
    image[7, 0, 0, 0] ^= 1
    write_folder(tmp_path / "real", image)
    evaluate("fake", "-r", "real", *USUAL)
    assert Small.seen == 240


def test_damaged_caches_are_recomputed(folders, tmp_path):
    first, _ = evaluate("fake", "-r", "real", *USUAL)
    for path in (tmp_path / "results" / "cache").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    again, _ = evaluate("fake", "-r", "real", *USUAL)
    assert values(again) == values(first)
    assert Small.seen == 200


def test_other_weights_miss_the_cache(folders, monkeypatch):
    evaluate("fake", "-r", "real", *USUAL)

    class Other(Small):
        def __init__(self, *args, **more):
            super().__init__()
            self.hash = "0" * 64

    monkeypatch.setitem(EXTRACTORS, "small", Other)
    Other.seen = 0
    evaluate("fake", "-r", "real", *USUAL)
    assert Other.seen == 100


def test_csv_by_suffix(folders):
    ran = bench("evaluate", "fake", "-r", "real", *USUAL, "-o", "out.csv")
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert [row["metric"] for row in rows] == ["fd", "kid", "precision_k3"]
    assert rows[0]["title"] == "FD small @40"
    assert float(rows[0]["value"]) > 0


def test_data_sets_by_name_on_both_sides():
    report, _ = evaluate("modes1d:train", "-r", "modes1d", "--metric", "w1", "--metric", "fd")
    found = values(report)
    assert set(found) == {("w1", ""), ("fd", "identity")}
    assert found["w1", ""] < 0.01
    assert report["rows"][0]["reference"] == "modes1d/reference"
    assert report["rows"][0]["samples"] == "modes1d/train"


def test_vectors_in_a_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 1)).astype(np.float32)
    np.savez("v.npz", arr_0=x)
    report, _ = evaluate("v.npz", "-r", "modes1d", "--metric", "fd")
    assert report["rows"][0]["extractor"] == "identity"
    np.savez("w.npz", arr_0=x + 1)
    # Without any option, against vectors: the features are the vectors.
    report, _ = evaluate("w.npz", "-r", "v.npz")
    expected = 1.0
    assert values(report)["fd", "identity"] == pytest.approx(expected, rel=1e-5)


def test_max_samples_is_a_fixed_random_subset(folders):
    report, _ = evaluate("fake", "-r", "real", *USUAL, "--max-samples", "15")
    assert report["rows"][0]["n"] == 15
    x = sorted_by_class(pictures(seed=1, shift=10))
    chosen = draw(40, 15)
    assert len(set(chosen)) == 15
    assert (np.diff(chosen) > 0).all()
    # Sorted by class: the first 15 would be of one class.
    assert 3 < (chosen < 20).sum() < 12
    assert report["rows"][0]["value"] == pytest.approx(
        direct(x[chosen], pictures(60), "fd").value, rel=1e-6
    )
    assert draw(40, 40) is None
    assert draw(40, None) is None


def test_labels_of_a_file_replace_the_folders(folders, tmp_path):
    (tmp_path / "l.txt").write_text("\n".join("01" * 20))
    np.save("l.npy", np.array([0, 1] * 20))
    text = file_source(tmp_path / "fake", labels=tmp_path / "l.txt")
    array = file_source(tmp_path / "fake", labels=tmp_path / "l.npy")
    labels = torch.cat([y for _, y in text.batches()])
    assert labels.tolist() == [0, 1] * 20
    assert text.hash == array.hash
    own = file_source(tmp_path / "fake")
    assert torch.cat([y for _, y in own.batches()]).tolist() == [0] * 20 + [1] * 20
    assert own.hash != text.hash
    assert bench("evaluate", "fake", "-r", "real", *USUAL, "--labels", "l.txt").code == 0
    for content, why in (("0 1", "not one whole number for each of 40"), ("a", "holds no classes")):
        (tmp_path / "l.txt").write_text(content)
        ran = bench("evaluate", "fake", "-r", "real", *USUAL, "--labels", "l.txt")
        assert (ran.code, why in ran.err) == (1, True), ran.err


def test_sizes_may_differ_with_a_warning(folders, tmp_path):
    write_folder(tmp_path / "large", pictures(shape=(3, 16, 12)))
    report, ran = evaluate("fake", "-r", "large", *USUAL)
    assert "8 x 8 pixels and the reference 12 x 16 pixels" in report["warnings"][0]
    assert "Warning: samples have 8 x 8" in ran.err
    assert len(report["rows"]) == 3


def test_grey_samples_become_colour_for_a_colour_reference(folders, tmp_path):
    write_folder(tmp_path / "grey", pictures(shape=(1, 8, 8)))
    report, _ = evaluate("grey", "-r", "real", *USUAL)
    assert not any("grey" in line for line in report["warnings"])
    report, _ = evaluate("fake", "-r", "grey", *USUAL)
    assert "one side is grey and the other in colour." in report["warnings"]


def test_few_samples_give_a_warning(folders):
    report, _ = evaluate("fake", "-r", "real", *USUAL, "--max-samples", "8")
    (line,) = report["warnings"]
    assert line.startswith("8 samples do not exceed the 8 dimensions of small")


def test_copies_give_a_warning(folders, tmp_path):
    write_folder(tmp_path / "same", [*pictures(1)] * 9)
    write_folder(tmp_path / "some", [*pictures(9), *pictures(9)[:6]])
    report, _ = evaluate("same", "-r", "some", *USUAL)
    assert "all 9 samples of same are equal: metrics of them mean nothing." in report["warnings"]
    assert "6 of the 15 samples of some are copies of others in it." in report["warnings"]


def test_sample_with_nan_features_is_named(folders, monkeypatch, tmp_path):
    evaluate("fake", "-r", "real", *USUAL)
    monkeypatch.setattr(Small, "poison", 23)
    ran = bench("evaluate", "fake", "-r", "real", *USUAL)
    assert ran.code == 1
    # Sorted: the 20 of class c0 come first.
    assert f"fake/c1/{2 * 3 + 1:03}.png cannot be measured: features of extractor 'small'" in (
        ran.err
    )
    ran = bench("evaluate", "real", "-r", "fake", *USUAL)
    assert "fake/c1/007.png cannot be measured" in ran.err
    bad = np.zeros((9, 1), np.float32)
    bad[5] = np.nan
    np.savez("v.npz", arr_0=bad)
    ran = bench("evaluate", "v.npz", "-r", "modes1d", "--metric", "fd")
    assert "sample 5 of v.npz cannot be measured" in ran.err


REFUSED = {
    "nothing there": (("zzz", "-r", "real"), 2, "no file, folder or data set 'zzz'"),
    "no such split": (("fake", "-r", "digits:tests"), 2, "Splits of digits are reference and"),
    "metric": (("fake", "-r", "real", "--metric", "fdd"), 2, "Unknown metric 'fdd'"),
    "extractor": (("fake", "-r", "real", "-x", "smal"), 2, "Did you mean 'small'"),
    "protocol": (("fake", "-r", "real", "-p", "edm"), 2, "Unknown protocol 'edm'"),
    "both": (("fake", "-r", "real", "-p", "adm", "-x", "small"), 2, "drop --extractor"),
    "out": (("fake", "-r", "real", "-o", "x.txt"), 2, "a .json or .csv file"),
    "one image": (("one", "-r", "real", "-x", "small"), 1, "at least 2"),
    "classifier": (("fake", "-r", "real", "-x", "classifier"), 2, "trained on a data set"),
    "vectors": (("fake", "-r", "modes1d", "-x", "small"), 2, "they cannot be compared"),
    "labels": (("digits", "-r", "digits", "--labels", "l"), 2, "--labels is for files"),
    "damaged": (("broken", "-r", "real", "-x", "small"), 1, "broken/c0/000.png is damaged"),
    "exact": (("fake", "-r", "real", "-x", "small", "--metric", "w1"), 2, "No metric can be"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "why"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_reported_before_extraction(folders, tmp_path, arguments, code, why):
    write_folder(tmp_path / "one", pictures(1))
    broken = write_folder(tmp_path / "broken", pictures(3)) / "c0" / "000.png"
    broken.write_bytes(broken.read_bytes()[:60])
    ran = bench("evaluate", *arguments)
    assert ran.code == code, ran.err
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert Small.seen == 0


def test_missing_weights_are_reported_before_reading(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDANCE_BENCH_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(evaluating, "read_sides", lambda *_: pytest.fail("images were read"))
    ran = bench("evaluate", "fake", "-r", "real", "-p", "edm-fid50k")
    assert ran.code == 1
    for part in ("weights-inception-2015-12-05-6726825d.pth", "6726825d", "none", "--download"):
        assert part in ran.err


def test_failing_metric_keeps_other_values(folders, monkeypatch):
    def fail(self, **_):
        raise RuntimeError("broken")

    monkeypatch.setattr(METRICS["kid"], "compute", fail)
    ran = bench("evaluate", "fake", "-r", "real", *USUAL, "-o", "out.json")
    assert ran.code == 1
    assert "Not everything could be measured: metric kid failed: RuntimeError: broken." in ran.err
    report = json.loads(Path("out.json").read_text())
    assert [row["metric"] for row in report["rows"]] == ["fd", "precision_k3"]
    assert report["not_measured"][0]["failed"]


def test_protocol_sets_extractors_and_metrics(folders, monkeypatch):
    monkeypatch.setitem(EXTRACTORS, "efficientnet-lite0", Small)
    monkeypatch.setattr(makers, "_efficientnet", lambda device: EXTRACTORS["efficientnet-lite0"]())
    monkeypatch.setattr(Small, "name", "efficientnet-lite0")
    report, ran = evaluate("fake", "-r", "real")
    assert "Protocol: offline, no download" in ran.out
    assert [row["metric"] for row in report["rows"]] == [
        "fd", "fd_corrected", "kid", "precision_k3", "recall_k3", "density_k3", "coverage_k3",
    ]  # fmt: skip
    assert {row["protocol"] for row in report["rows"]} == {"offline"}


def test_devices_are_checked_first():
    ran = bench("evaluate", "digits", "-r", "digits", "--device", "tpu9")
    assert ran.code == 2
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Estimate(58.123, 2.84), "58.1 ± 2.8"),
        (Estimate(-0.00151, 0.0022), "-0.0015 ± 0.0022"),
        (Estimate(1.0, 0.0), "1.000 ± 0"),
        (Estimate(1.0, 0.0, "Wilson", 0.93, 1.0), "1.000 ≥ 0.930"),
        (Estimate(3.14159265), "3.142"),
        (Estimate(1234.5, 321.0), "1234 ± 321"),
        (Estimate(2.1e-15, 1.2e-14), "2.1e-15 ± 1.2e-14"),
        (Estimate(1.199342, 9.7e-17), "1.199 ± 0"),
        (Estimate(-1e5, 1e-8), "-100000.0 ± 0"),
        (Estimate(1.0, 1e-9), "1.000000 ± 1.0e-09"),
    ],
)
def test_values_are_shown_with_two_digits_of_the_error(found, text):
    assert shown(found) == text


def test_values_are_printed_with_their_errors(folders):
    report, ran = evaluate("fake", "-r", "real", *USUAL)
    for row in report["rows"]:
        found = Estimate(row["value"], row["se"], row["se_method"], row["low"], row["high"])
        assert f" {shown(found)} " in ran.out


def test_unsuitable_real_images_are_reported_before_generated_ones_are_read(monkeypatch):
    grey = ("digits:train", "-r", "digits", "-x", "small", "--max-samples", "50")
    reason = "chroma_ratio needs real images with colour, and these have none"
    report, ran = evaluate(*grey, "--metric", "contrast_ratio", "--metric", "chroma_ratio")
    assert [row["metric"] for row in report["rows"]] == ["contrast_ratio"]
    (missing,) = report["not_measured"]
    assert (missing["metric"], missing["reason"]) == ("chroma_ratio", reason)
    assert f"Not measured: chroma_ratio: {reason}." in " ".join(ran.out.split())
    monkeypatch.setattr(Plan, "accumulator", lambda self: pytest.fail("samples were measured"))
    ran = bench("evaluate", *grey, "--metric", "chroma_ratio")
    refusal = f"Error: No metric can be computed against digits/reference: {reason}.\n"
    assert (ran.code, ran.err) == (2, refusal)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "fake", "-r", "real", *USUAL),
        ("stats", "make", "real", "-x", "small", "-o", "s"),
    ],
    ids=["evaluate", "stats make"],
)
def test_offline_computes_and_refuses_every_connection(folders, monkeypatch, command):
    assert bench(*command, "--offline").code == 0
    ran = bench(*command, "--offline", "--download")
    assert ran.code == 2
    assert ran.err.startswith("Error: --offline forbids what --download allows")

    def curious(*_, **__):
        # An address that is nobody's (RFC 5737).
        with socket.create_connection(("192.0.2.1", 80), timeout=0.1):
            pytest.fail("connected")

    monkeypatch.setitem(EXTRACTORS, "small", curious)
    ran = bench(*command, "--offline")
    assert ran.code == 1
    assert ran.err.startswith("Error: --offline forbids the connection to 192.0.2.1 ")


def test_one_weights_file_for_two_networks_is_refused(folders):
    Path("w.pth").touch()
    more = ("-x", "inception", "-x", "vgg16", "--weights", "w.pth")
    ran = bench("evaluate", "fake", "-r", "real", *more)
    assert ran.code == 2
    assert "--weights w.pth is one file, but inception, vgg16 need" in ran.err


def test_samples_of_the_reference_are_suspected_by_their_kid(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 3, 4, 4)).astype(np.uint8)

    def warnings(samples):
        found = api.evaluate(
            samples, noise, metrics=["kid"], extractors=["small"], results=tmp_path
        )
        return found.warnings

    (line,) = warnings(noise)
    assert re.fullmatch(
        r"KID is \d+ standard errors below zero, .* may be in the reference\.", line
    )
    assert warnings(np.random.default_rng(1).integers(0, 256, noise.shape).astype(np.uint8)) == ()
