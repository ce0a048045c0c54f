"""`bench evaluate` against statistics files, and `bench stats`, which makes them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.evaluation.statistics_files import read_statistics
from metrics import EXTRACTORS
from metrics.moments import moments_of
from tests.bench.evaluation.helpers import Small, pictures, write_folder
from tests.bench.helpers import bench

ALL = ("fd", "fd_inf", "kid", "precision_k3", "is_10", "saturation")
USUAL = ("--extractor", "small", *(part for name in ALL for part in ("--metric", name)))


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.setitem(EXTRACTORS, "small", Small)
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "fake", pictures(seed=1, shift=10))
    write_folder(tmp_path / "real", pictures(60))


def evaluate(*arguments):
    ran = bench("evaluate", *arguments, "-o", "out.json")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out.json").read_text())
    return {row["metric"]: row for row in report["rows"]}, report


def make(*arguments):
    ran = bench("stats", "make", "real", "-x", "small", *arguments)
    assert ran.code == 0, ran.err
    return ran


def of_real():
    x = pictures(60)
    return Small()(torch.from_numpy(np.concatenate([x[::2], x[1::2]]))).features.numpy()


def test_moments_suffice_for_the_distance():
    make("-o", "real.npz")
    full, _ = evaluate("fake", "-r", "real", *USUAL)
    rows, report = evaluate("fake", "-r", "real.npz", *USUAL)
    assert set(full) == set(ALL)
    assert set(rows) == {"fd", "fd_inf", "is_10", "saturation"}
    for name, row in rows.items():
        assert row["value"] == pytest.approx(full[name]["value"], rel=1e-9)
        assert row["reference"] == "real.npz"
    assert rows["fd"]["se"] == pytest.approx(full["fd"]["se"], rel=1e-9)
    assert rows["fd"]["n_real"] == 60
    missing = {m["metric"]: m["reason"] for m in report["not_measured"]}
    assert set(missing) == {"kid", "precision_k3"}
    assert missing["kid"].startswith("it needs features of the real samples, and real.npz holds")
    assert report["warnings"] == []


def test_results_from_a_statistics_file_are_cached():
    make("-o", "real.npz")
    evaluate("fake", "-r", "real.npz", *USUAL)
    assert len(list(Path("results/cache").glob("root-*.npz"))) == 1


def test_extractor_is_the_one_named_in_the_file():
    make("-o", "real.npz")
    rows, _ = evaluate("fake", "-r", "real.npz", "--metric", "fd")
    assert rows["fd"]["extractor"] == "small"


def test_features_suffice_for_all_but_pixel_metrics():
    full, _ = evaluate("fake", "-r", "real", *USUAL)
    make("-o", "stats/real.npz", "--format", "clean-fid")
    np.savez("reps.npz", reps=of_real(), hparams=np.array({"a": 1}, dtype=object))
    for file in ("stats/real_kid.npz", "reps.npz"):
        rows, report = evaluate("fake", "-r", file, *USUAL)
        assert set(rows) == set(ALL)
        for name in ("fd", "kid", "precision_k3"):
            assert rows[name]["value"] == pytest.approx(full[name]["value"], rel=1e-9)
            assert rows[name]["n_real"] == 60
        assert bool(report["warnings"]) == (file == "reps.npz")


def test_file_of_unknown_origin_gives_a_warning():
    x = of_real()
    np.savez("edm.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    full, _ = evaluate("fake", "-r", "real", *USUAL)
    rows, report = evaluate("fake", "-r", "edm.npz", *USUAL)
    # A mean in float32.
    assert rows["fd"]["value"] == pytest.approx(full["fd"]["value"], rel=1e-4)
    assert rows["fd"]["n_real"] is None
    assert "edm.npz does not say which network and resize made it" in report["warnings"][0]


def test_adm_file_has_all_moments_and_some_images():
    x, some = of_real(), pictures(30)
    spatial = moments_of(np.random.default_rng(0).normal(size=(40, 5)))
    np.savez(
        "adm.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False), mu_s=spatial.mean,
        sigma_s=spatial.cov, arr_0=some.transpose(0, 2, 3, 1),
    )  # fmt: skip
    full, _ = evaluate("fake", "-r", "real", *USUAL)
    np.savez("some.npz", arr_0=some.transpose(0, 2, 3, 1))
    part, _ = evaluate("fake", "-r", "some.npz", *USUAL)
    rows, report = evaluate("fake", "-r", "adm.npz", *USUAL)
    assert report["not_measured"] == []
    assert rows["fd"]["value"] == pytest.approx(full["fd"]["value"], rel=1e-4)
    for name in ("kid", "precision_k3"):
        assert rows[name]["value"] == part[name]["value"]
        assert rows[name]["n_real"] == 30


def test_edm2_file_is_read_by_section(monkeypatch):
    x = of_real().astype(np.float64)
    part = {"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)}
    content = {"num_images": 60, "fid": part, "fd_dinov2": {"mu": np.zeros(3), "sigma": np.eye(3)}}
    Path("ref.pkl").write_bytes(pickle.dumps(content))
    monkeypatch.setattr(Small, "name", "inception")
    monkeypatch.setitem(EXTRACTORS, "inception", lambda *_, **__: Small())
    Path("w.pth").touch()
    rows, report = evaluate("fake", "-r", "ref.pkl#fid", "--metric", "fd", "--weights", "w.pth")
    assert rows["fd"]["extractor"] == "inception"
    assert rows["fd"]["n_real"] == 60
    assert len(report["warnings"]) == 2
    ran = bench("evaluate", "fake", "-r", "ref.pkl", "--metric", "fd")
    assert ran.code == 2
    assert "several sections: name one, as in ref.pkl#fd_dinov2 or ref.pkl#fid" in ran.err


def test_mismatched_statistics_are_refused(monkeypatch):
    make("-o", "real.npz")
    np.savez("edm.npz", mu=np.zeros(3), sigma=np.eye(3))
    ran = bench("evaluate", "fake", "-r", "edm.npz", *USUAL)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "has features of 3 dimensions and extractor small gives 8" in ran.err

    class Other(Small):
        def __init__(self, *_, **__):
            super().__init__()
            self.hash = "f" * 64

    monkeypatch.setitem(EXTRACTORS, "small", Other)
    ran = bench("evaluate", "fake", "-r", "real.npz", *USUAL)
    assert ran.code == 1
    assert "other weights, resize or preprocessing than extractor small has here" in ran.err
    assert "ffffffffffff" in ran.err
    ran = bench("evaluate", "fake", "-r", "edm.npz", "-x", "small", "--metric", "kid")
    assert ran.code == 1


def test_moments_file_does_not_suffice_for_kid():
    make("-o", "real.npz")
    ran = bench("evaluate", "fake", "-r", "real.npz", "-x", "small", "--metric", "kid")
    assert ran.code == 2
    assert (
        "No metric can be computed against real.npz: it needs features of the real samples"
        in ran.err
    )


@pytest.mark.parametrize("kind", ["edm", "clean-fid"])
def test_stats_in_a_folder_get_the_name_their_reader_expects(kind):
    make("-o", "stats", "--format", kind)
    names = {path.name for path in Path("stats").iterdir()}
    assert (
        names
        == {
            "edm": {"real-small.npz"},
            "clean-fid": {"real_small_custom_na.npz", "real_small_custom_na_kid.npz"},
        }[kind]
    )


def test_stats_for_torch_fidelity(monkeypatch):
    make("-o", "a.pt", "--format", "torch-fidelity")
    stored = torch.load("a.pt", weights_only=False)
    assert (stored["mu"].dtype, stored["sigma"].dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(stored["mu"], of_real().mean(0), rtol=1e-5)
    monkeypatch.setitem(EXTRACTORS, "inception", lambda *_, **__: Small())
    monkeypatch.setattr(Small, "name", "inception")
    Path("w.pth").touch()
    ran = bench(
        "stats", "make", "real", "-x", "inception", "--weights", "w.pth", "-o", "stats",
        "--format", "torch-fidelity",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert Path("stats/real-inception-v3-compat-stat-fid-2048.pt").is_file()


def test_stats_show_prints_the_content_of_a_file():
    make("-o", "real.npz")
    ran = bench("stats", "show", "real.npz")
    assert ran.code == 0, ran.err
    card = read_statistics(Path("real.npz")).card
    for line in (
        "dimensions: 8",
        "samples: 60",
        f"made with: small (hash {card.extractor_hash[:12]})",
        f"made of: real (SHA-256 {card.source_hash[:12]})",
    ):
        assert line in ran.out.splitlines()
    np.savez("edm.npz", mu=np.zeros(3), sigma=np.eye(3))
    ran = bench("stats", "show", "edm.npz")
    assert "made with: the file does not say" in ran.out
    assert "samples: the file does not say" in ran.out
    ran = bench("stats", "show", "fake")
    assert ran.code == 1
    assert "There is no statistics file" in ran.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-o", "a.npz", "--format", "adm"), "use --extractor inception"),
        (("-o", "stats", "--format", "torch-fidelity"), "only finds Inception features"),
        (("-o", "a.pt"), r"--out of --format edm is a .npz file or a folder"),
        (("-o", "a.npz", "--format", "edn"), "Did you mean 'edm'"),
    ],
)
def test_impossible_stats_are_refused_before_extraction(arguments, why):
    Small.seen = 0
    ran = bench("stats", "make", "real", "-x", "small", *arguments)
    assert ran.code == 2
    assert why in ran.err
    assert Small.seen == 0
    assert not list(Path().glob("a.*"))


def test_stats_of_a_data_set():
    ran = bench("stats", "make", "digits:train", "-x", "small", "-o", "out")
    assert ran.code == 0, ran.err
    found = read_statistics(Path("out/digits-train-small.npz"))
    assert found.card.source == "digits/train"
    assert found.n == 899
